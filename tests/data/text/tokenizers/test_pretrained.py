"""Pretrained tokenizers read prompts, continuations and ends as `transformers` does."""

import json

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import zoo
from zoo.core.spaces import Tokens
from zoo.data.text.datamodule import TokenWindows
from zoo.data.text.prompts import PromptResponseData
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.bpe import byte_alphabet
from zoo.data.text.tokenizers.pretrained import COMPANIONS, Pretrained
from zoo.models.finetuning.base import exact_match
from zoo.nn.samplers.rollout import PromptExample
from zoo.nn.samplers.sampling_params import SamplingParams

TEXTS = ["hello there", "", " a", "A b!", "\n\nx", "12+7="]


def byte_level(post: bool) -> Tokenizer:
    """GPT-2's kind without a begin token, or Llama 3's with one."""
    alphabet = {c: b for c, b in byte_alphabet().items()}
    backend = Tokenizer(models.BPE(alphabet, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True) for t in ("<|begin|>", "<|end|>", "<|eot_id|>")])
    template = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 256)])
    backend.post_processor = template if post else processors.ByteLevel(trim_offsets=False)
    return backend


def word_pieces() -> Tokenizer:
    """BERT's kind."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "there", "a", "b", "x", "##1", "1"]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([AddedToken(w, special=True) for w in words[:5]])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend


def sentence_pieces() -> Tokenizer:
    """Llama 2's kind: a space before every text, and bytes of unknown characters."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", "a", "b", "\u2581a", "ab", "7"]
    vocabulary = {name: i for i, name in enumerate(names)}
    merges = [("\u2581", "a"), ("a", "b")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(t, special=True) for t in names[:3]])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


KINDS = {
    "gpt2": (lambda: byte_level(False), {"eos_token": "<|end|>"}),
    "llama3": (lambda: byte_level(True), {"bos_token": "<|begin|>", "eos_token": "<|end|>"}),
    "bert": (word_pieces, {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"}),
    "llama2": (sentence_pieces, {"bos_token": "<s>", "eos_token": "</s>"}),
}


def write(folder, kind: str, **files) -> Pretrained:
    make, special = KINDS[kind]
    make().save(str(folder / "tokenizer.json"))
    files = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **special}, **files}
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return Pretrained(path=str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_read_as_by_transformers(kind, tmp_path):
    ours = write(tmp_path, kind)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode_prompt(text) == (theirs(text)["input_ids"] or [ours.begin])
        assert loads(dumps(ours)).encode_prompt(text) == ours.encode_prompt(text)


@pytest.mark.parametrize(("kind", "begin"), [("llama3", "<|begin|>"), ("llama2", "<s>"), ("bert", "[CLS]")])
def test_a_begin_token_in_the_text_is_not_doubled(kind, begin, tmp_path):
    ours = write(tmp_path, kind)
    assert ours.encode_prompt(f"{begin}a").count(ours.begin) == 1


def test_a_continuation_is_spelled_as_it_is(tmp_path):
    ours = write(tmp_path, "llama2")
    for text in ("a", "ab", " ab", "7", "é", "", "\n a"):
        ids = ours.encode_continuation(text)
        assert b"".join(ours.pieces[i] for i in ids) == text.encode()
    assert ours.encode_continuation("ab") == [ours.backend.token_to_id("ab")]
    assert b"".join(ours.pieces[i] for i in ours.encode("ab")) == b" ab", "the control"


class Rows(PromptResponseData):
    registered_name = "rows"

    def rows(self):
        return [[("a", "7")]] * 3


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "llama2"])
@pytest.mark.parametrize("packing", [False, True])
def test_rows_of_fine_tuning_begin_as_prompts_do(kind, packing, tmp_path):
    ours = write(tmp_path, kind)
    data = Rows(None, False, "byte", 4, 0)
    data.packing, data.tokenizer, data.tokenizer_from_model = packing, ours, True
    data.load()
    ((begin, length),), (x, y) = data.val[0][0].tolist(), data.val[1]
    prompt, answer = ours.encode_prompt("a"), ours.encode_continuation("7")
    if packing and kind == "gpt2":
        prompt = [ours.begin, *prompt]  # something must separate rows
    assert x[begin : begin + length].tolist() == prompt + answer
    assert y[begin : begin + length].tolist() == [-100] * (len(prompt) - 1) + answer + [ours.end]


def test_lists_of_ends_and_special_stops(tmp_path):
    ends = [257, 258]
    ours = write(tmp_path, "llama3", **{"generation_config.json": {"eos_token_id": ends}})
    assert ours.ends == ends
    assert write(tmp_path, "llama3", **{"generation_config.json": {}, "config.json": {"eos_token_id": 258}}).ends == [
        257
    ]
    (tmp_path / "generation_config.json").unlink()
    again = loads(dumps(Pretrained(path=str(tmp_path))))
    assert again.ends == [258, 257]
    assert (again.special_id("<|eot_id|>"), again.special_id("a"), again.special_id("<|none|>")) == (258, None, None)


def scripted(tokenizer, tokens):
    """A language model that writes given tokens, one after the other."""
    model = zoo.create_model("gpt", data=zoo.DataSpec(Tokens(32, tokenizer.vocab_size, dumps(tokenizer))))
    one_hot = torch.nn.functional.one_hot(torch.tensor(tokens), tokenizer.vocab_size).float() * 99
    state = {"at": 0}

    def logits(read, *_):
        state["at"] += 1
        return one_hot[min(state["at"], len(tokens)) - 1].expand(len(read), -1)

    model.net.prefill = lambda read, padding=None: (logits(read), None)
    model.net.step = logits
    return model


def test_generation_stops_at_every_end_and_at_special_stops(tmp_path):
    ours = write(tmp_path, "llama3", **{"generation_config.json": {"eos_token_id": [257]}})
    letters = [97, 98, 258, 99, 257]
    (done,) = scripted(ours, letters).generate("x", max_new_tokens=5)
    assert (done.text, done.finish_reason) == ("abc", "eos")
    (done,) = scripted(ours, letters).generate("x", max_new_tokens=5, stop=["<|eot_id|>"])
    assert (done.text, done.finish_reason) == ("ab", "stop")
    ours = write(tmp_path, "llama3", **{"generation_config.json": {"eos_token_id": [257, 258]}})
    (done,) = scripted(ours, letters).generate("x", max_new_tokens=5)
    assert (done.text, done.finish_reason) == ("ab", "eos")


@pytest.mark.parametrize(("ends", "tokens", "right"), [([257, 258], 3, True), ([257], 5, False)])
def test_answers_of_fine_tuning_stop_at_every_end(ends, tokens, right, tmp_path):
    """In the rollout of GRPO and the accuracy of SFT as in generation."""
    ours = write(tmp_path, "llama3", **{"generation_config.json": {"eos_token_id": ends}})
    backbone = {"name": "transformer", "d_model": 16, "n_layers": 1, "n_heads": 2}
    spec = zoo.DataSpec(Tokens(32, ours.vocab_size, dumps(ours)))
    policy = {"name": "language_model", "backbone": backbone}
    for name in ("grpo", "sft"):
        model = zoo.create_model(name, data=spec, policy=policy)
        written = scripted(ours, [97, 98, 258, 99, 257])
        model.net.prefill, model.net.step = written.net.prefill, written.net.step
        asked = [PromptExample(ours.encode_prompt("x"), [97, 98, ours.end])]
        (answer,) = model.answers(asked, SamplingParams(temperature=0), 5)
        assert len(answer) == tokens
        assert bool(exact_match(asked, [answer], model.ends)) == right


def test_files_beside_it_are_carried(tmp_path):
    files = {"generation_config.json": {"temperature": 0.6}, "chat_template.jinja": "{{ bos_token }}"}
    ours = write(tmp_path, "llama3", **files)
    again = loads(dumps(ours))
    assert again.files == ours.files
    assert again.files == {n: (tmp_path / n).read_text() for n in COMPANIONS if (tmp_path / n).is_file()}
    bad = json.loads(dumps(ours))
    bad["state"]["files"]["../evil.py"] = "1"
    assert "../evil.py" not in loads(json.dumps(bad)).files


class Stories(TokenWindows):
    registered_name = "stories"

    def read(self):
        return (["ab", "ba", "a"] * 4,) * 3


def test_document_mask_where_the_begin_token_is_not_the_end(tmp_path):
    """Tokens of one text do not depend on those of another text in the same window."""
    ours = write(tmp_path, "llama2")
    data = Stories(9, "byte", 4, 0)
    data.tokenizer, data.tokenizer_from_model = ours, True
    data.load()
    stream = data.val[1].tolist()
    begin, end = ours.begin, ours.end
    assert stream[:8] == [begin, *ours.encode("ab"), end, begin, *ours.encode("ba"), end][:8]
    backbone = {"name": "transformer", "d_model": 16, "n_layers": 2, "n_heads": 2}
    model = zoo.create_model("gpt", data=data.spec, backbone=backbone, document_mask=True)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    window = torch.tensor([stream[:8]])
    other = window.clone()
    other[0, 1] = ours.encode("b")[-1]
    with torch.no_grad():
        one, two = model.net(window), model.net(other)
    second = stream.index(begin, 1)
    assert torch.equal(one[:, second:], two[:, second:])
    assert not torch.equal(one[:, second - 1], two[:, second - 1])


def test_a_model_without_a_tokenizer_names_the_missing_file():
    model = zoo.create_model("gpt", data=zoo.DataSpec(Tokens(8, 9), name="folder"))
    with pytest.raises(zoo.ZooError, match=r"folder.*has no tokenizer.*tokenizer\.json"):
        model.generate("a")


def test_a_single_text_is_one_prompt(tmp_path):
    ours = write(tmp_path, "gpt2")
    assert len(scripted(ours, [97] * 9).generate("LATIN", max_new_tokens=2)) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"length_penalty": 2.0}, "length_penalty=2.0: needs beam search"),
        ({"beams": 2, "temperature": 0.5}, "beam search does not sample"),
        ({"max_tokens": 2}, "did you mean 'max_new_tokens'"),
    ],
)
def test_options_without_effect_are_refused(options, sentence, tmp_path):
    with pytest.raises(zoo.ZooError, match=sentence):
        scripted(write(tmp_path, "gpt2"), [97] * 9).generate("a", **options)
