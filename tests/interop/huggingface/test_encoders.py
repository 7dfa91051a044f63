"""BERT, RoBERTa and DistilBERT with tokenizers, against the `transformers` library."""

import pytest
import torch
import transformers

import zoo
from tests.formats import drawn
from tests.interop.huggingface.test_load import trained_tokenizer
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.interop.huggingface import save

ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [f"{a}{b}" for a in "bcdfghklm" for b in "aeiou"]
TEXTS = ["ba be bi", "ko", "du du ha la li lo lu ma", "fe fi fo fu ga"]


def tokenizer(kind):
    """A tokenizer of words with the special tokens of a kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    names = ROBERTA if kind == "roberta" else BERT
    roles = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), names, strict=True))
    if kind != "roberta":
        roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=True))
    first, last = (names[0], names[2]) if kind == "roberta" else (names[2], names[3])
    vocabulary = {word: i for i, word in enumerate([*names, *WORDS])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=roles["unk_token"]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    ends = [(first, vocabulary[first]), (last, vocabulary[last])]
    backend.post_processor = processors.TemplateProcessing(f"{first} $A {last}", f"{first} $A {last} $B {last}", ends)
    # As in published folders: what a library writes there is not a property of the model.
    backend.enable_truncation(4)
    backend.enable_padding(pad_id=vocabulary[roles["pad_token"]], pad_token=roles["pad_token"], length=12)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def folder_of(kind, folder):
    """A model of `transformers` and its tokenizer, saved in a folder."""
    model, reader = drawn(kind), tokenizer(kind)
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    return model, reader


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_masks_are_filled_as_by_transformers(kind, tmp_path):
    theirs, reader = folder_of(kind, tmp_path)
    ours = zoo.load(tmp_path)
    for text in TEXTS:
        whole = reader(f"{text} {reader.mask_token} ba", return_tensors="pt", truncation=False, padding=False)[
            "input_ids"
        ]
        assert whole.shape[1] == len(text.split()) + 4
        row = theirs(whole).logits[0]
        best = row[(whole[0] == reader.mask_token_id).nonzero()[0, 0]].argmax()
        (filled,) = ours.fill(f"{text} {ours.mark} ba", temperature=0.0)
        assert filled == ours.tokenizer.decode([*whole[0, 1:-3].tolist(), int(best), *whole[0, -2:-1].tolist()])


@torch.no_grad()
def test_roberta_comes_back_with_its_padding_token(tmp_path):
    theirs, reader = folder_of("roberta", tmp_path / "theirs")
    ours = zoo.load(tmp_path / "theirs")
    save.save(ours, tmp_path / "back", "roberta")
    back = transformers.RobertaForMaskedLM.from_pretrained(tmp_path / "back").eval()
    assert (back.config.pad_token_id, back.config.max_position_embeddings) == (1, theirs.config.max_position_embeddings)
    rows = reader(TEXTS, return_tensors="pt", padding=True)
    real = rows["attention_mask"].bool()
    got, want = (
        model(rows["input_ids"], attention_mask=rows["attention_mask"]).logits[real] for model in (back, theirs)
    )
    own = ours(rows["input_ids"].masked_fill(~real, -1))[real]
    assert (got - want).abs().max() < 1e-4
    assert (own - want).abs().max() < 1e-4


def test_roberta_needs_a_padding_token(tmp_path):
    own = trained_tokenizer()
    spec = zoo.DataSpec(Tokens(16, own.vocab_size, dumps(own)))
    model = zoo.create_model("bert", data=spec, backbone={"position_encoding": "learned"})
    with pytest.raises(zoo.ZooError, match=r"model_type='roberta': the tokenizer has no padding token"):
        save.save(model, tmp_path / "out", "roberta")
    with pytest.raises(zoo.ZooError, match=r"model_type='gpt2': not a kind of bert\. Choose one of bert, roberta"):
        save.save(model, tmp_path / "out", "gpt2")
    assert not (tmp_path / "out").exists()
