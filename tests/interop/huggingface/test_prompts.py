"""Texts of imported models, from prompts in words, against the `transformers` library."""

import pytest
import torch
import transformers

import zoo
from tests.data.text.tokenizers.test_pretrained import write
from tests.interop.huggingface.test_load import SMALL

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}


def folder_of(kind, path):
    """A model of `transformers` with the tokenizer of its kind."""
    path.mkdir()
    size = write(path, kind).vocab_size
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=size, n_positions=40, n_embd=32, n_layer=2, n_head=2, **SMALL,
                                         bos_token_id=257, eos_token_id=257)  # fmt: skip
        theirs = transformers.GPT2LMHeadModel(config)
    elif kind == "bert":
        theirs = transformers.BertForMaskedLM(
            transformers.BertConfig(vocab_size=size, max_position_embeddings=40, intermediate_size=48, **SIZES, **SMALL)
        )
    else:
        config = transformers.LlamaConfig(vocab_size=size, max_position_embeddings=40, intermediate_size=48, **SIZES,
                                          **SMALL, bos_token_id=256, eos_token_id=[257, 258])  # fmt: skip
        theirs = transformers.LlamaForCausalLM(config)
    theirs.save_pretrained(path)
    return theirs.eval(), transformers.PreTrainedTokenizerFast.from_pretrained(path)


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
@torch.no_grad()
def test_greedy_texts_are_equal_token_for_token(kind, tmp_path):
    theirs, reader = folder_of(kind, tmp_path / "theirs")
    ours = zoo.load(tmp_path / "theirs")
    for prompt in ("hello there", "a", "A b!", "12+7="):
        read = reader(prompt, return_tensors="pt", return_token_type_ids=False)
        want = theirs.generate(**read, do_sample=False, max_new_tokens=20, pad_token_id=0)[
            0, read["input_ids"].shape[1] :
        ]
        (done,) = ours.generate(prompt, temperature=0.0, max_new_tokens=20)
        assert done.tokens == [t for t in want.tolist() if t not in ours.ends]


@torch.no_grad()
def test_masks_are_filled_alike(tmp_path):
    theirs, reader = folder_of("bert", tmp_path / "theirs")
    ours = zoo.load(tmp_path / "theirs")
    for text in ("hello [MASK] there", "[MASK] a b", "x [MASK]"):
        read = reader(text, return_tensors="pt", return_token_type_ids=False)
        place = int((read["input_ids"][0] == reader.mask_token_id).nonzero())
        want = theirs(**read).logits[0, place]
        row = torch.tensor([ours.read(text)])
        torch.testing.assert_close(ours(row)[0, place], want, atol=1e-4, rtol=0)
        assert reader.decode([want.argmax()]) in ours.fill(text, temperature=0.0)[0] or want.argmax() < 5
