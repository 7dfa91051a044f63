"""Folders of sentence-transformers, against the encoder of `transformers` with explicit pooling."""

import importlib.util
import json

import pytest
import torch
import transformers
from torch.nn import functional as F

import zoo
from tests.formats import drawn
from tests.interop.huggingface.test_encoders import TEXTS, tokenizer
from zoo.cli.embed_texts import embed_texts
from zoo.interop.huggingface import save
from zoo.retrieval.embedding import Embedder

OLD = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
TOLERANCE = 1e-5


def folder_of(kind, folder, pooling="mean", normalize=True, limit=8, old=True):
    """An encoder of `transformers`, saved as sentence-transformers does."""
    model, reader = drawn(kind).base_model, tokenizer(kind)
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    first = "sentence_transformers.models" if old else "sentence_transformers.sentence_transformer.modules.x"
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 2 + normalize]
    modules = [{"idx": i, "name": str(i), "path": p, "type": f"{first}.{t}"} for i, (p, t) in enumerate(parts)]
    write(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    size = {"word_embedding_dimension": 32}
    modes = {f"pooling_mode_{name}": mode == pooling for mode, name in OLD.items()}
    write(folder / "1_Pooling" / "config.json", {**size, **modes} if old else {**size, "pooling_mode": pooling})
    if limit:
        write(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    return model, reader


def write(file, value):
    file.write_text(json.dumps(value))


@torch.no_grad()
def oracle(model, reader, texts, pooling, normalize, limit):
    """Vectors (N, d) by transformers."""
    rows = reader(texts, return_tensors="pt", padding=True, truncation=bool(limit), max_length=limit or None)
    keep = {key: rows[key] for key in ("input_ids", "attention_mask")}
    states, real = model(**keep).last_hidden_state, rows["attention_mask"][..., None]
    found = {
        "mean": lambda: (states * real).sum(1) / real.sum(1),
        "cls": lambda: states[:, 0],
        "max": lambda: (states - 1e9 * (1 - real)).max(1).values,
    }[pooling]()
    return F.normalize(found, dim=1) if normalize else found


@pytest.mark.parametrize(
    ("kind", "pooling", "normalize", "old"),
    [
        ("bert", "mean", True, True),
        ("bert", "max", False, False),
        ("roberta", "mean", False, True),
        ("roberta", "cls", True, False),
        ("distilbert", "mean", True, False),
        ("electra", "cls", False, True),
    ],
)
def test_vectors_are_those_of_transformers(kind, pooling, normalize, old, tmp_path):
    model, reader = folder_of(kind, tmp_path / "theirs", pooling, normalize, old=old)
    texts = [*TEXTS, "ba " * 20, ""]
    ours = zoo.load(tmp_path / "theirs")
    got = ours.embed(texts)
    assert (got - oracle(model, reader, texts, pooling, normalize, 8)).abs().max() < TOLERANCE
    for other in set(OLD) - {pooling}:  # the control
        assert (got - oracle(model, reader, texts, other, normalize, 8)).abs().max() > 100 * TOLERANCE
    assert (got - oracle(model, reader, texts, pooling, normalize, 7)).abs().max() > 100 * TOLERANCE
    save.save(ours, tmp_path / "back", kind)
    assert torch.equal(zoo.load(tmp_path / "back").embed(texts), got)
    again = transformers.AutoModel.from_pretrained(tmp_path / "back").eval()
    assert type(again) is type(model)
    assert (got - oracle(again, reader, texts, pooling, normalize, 8)).abs().max() < TOLERANCE


@pytest.mark.skipif(not importlib.util.find_spec("sentence_transformers"), reason="without sentence-transformers")
@pytest.mark.parametrize("pooling", OLD)
def test_vectors_are_those_of_the_library(pooling, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder_of("bert", tmp_path / "theirs", pooling)
    ours = zoo.load(tmp_path / "theirs")
    save.save(ours, tmp_path / "back")
    texts = [*TEXTS, "ba " * 20]
    for name in ("theirs", "back"):
        want = SentenceTransformer(str(tmp_path / name), device="cpu").encode(texts, convert_to_tensor=True)
        assert (ours.embed(texts) - want).abs().max() < TOLERANCE


def test_the_limit_is_that_of_the_tokenizer_or_of_the_positions(tmp_path):
    folder_of("bert", tmp_path, limit=0)
    assert zoo.load(tmp_path).hparams["embedded_tokens"] == 40
    rewrite_file(tmp_path / "tokenizer_config.json", {"model_max_length": 9})
    assert zoo.load(tmp_path).hparams["embedded_tokens"] == 9
    write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 70})
    assert zoo.load(tmp_path).hparams["embedded_tokens"] == 40


def rewrite_file(file, change):
    write(file, json.loads(file.read_text()) | change)


def test_the_encoder_may_have_its_own_folder(tmp_path, capsys):
    model, reader = folder_of("bert", tmp_path)
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    for file in [f for f in tmp_path.iterdir() if f.is_file() and f.name != "modules.json"]:
        file.rename(inner / file.name)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = inner.name
    write(tmp_path / "modules.json", modules)
    want = oracle(model, reader, TEXTS, "mean", True, 8)
    embedder = Embedder(tmp_path)
    assert (embedder.texts(TEXTS) - want).abs().max() < TOLERANCE
    assert len(embedder.about["sha256"]) == 64
    embed_texts(tmp_path, TEXTS[:1])
    printed = capsys.readouterr().out.removeprefix(TEXTS[0]).split()
    assert torch.tensor([float(number) for number in printed]).sub(want[0]).abs().max() < 1e-4


def test_an_encoder_without_a_head_embeds_and_nothing_else(tmp_path):
    folder_of("bert", tmp_path)
    ours = zoo.load(tmp_path)
    assert "embed" in ours.abilities
    assert not {"sample", "generate", "fill", "attention", "token_accuracy"} & set(ours.abilities)
    with pytest.raises(zoo.ZooError, match=r"backbone\.head=false: the encoder predicts no tokens\. Use embed"):
        ours.fill("ba [MASK]")
    where = save.export(tmp_path, model_type="bert")  # which compares features, and not logits
    assert json.loads((where / "config.json").read_text())["architectures"] == ["BertModel"]
    assert torch.equal(zoo.load(where).embed(TEXTS), ours.embed(TEXTS))


def test_electra_discriminators_are_encoders(tmp_path):
    torch.manual_seed(0)
    config = drawn("electra").config
    theirs = transformers.ElectraForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(3, 99, (2, 12))
    with torch.no_grad():
        want = theirs.electra(tokens).last_hidden_state
        assert (zoo.load(tmp_path).net.features(tokens) - want).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("file", "value", "sentence"),
    [
        ("modules.json", [{"type": "a.Transformer"}, {"type": "b.Pooling"}, {"type": "c.Dense", "path": "2_Dense"}],
         r"modules\.json: Dense is not supported\. Supported: Transformer, Pooling, Normalize\."),
        ("modules.json", [{"type": "a.Transformer"}], r"modules\.json: Transformer\. Supported: Transformer, Pooling"),
        ("modules.json", [{"type": "a.Transformer", "path": "../other"}], "path='../other' is outside of the folder"),
        ("modules.json", {}, "is damaged: not a JSON list"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True},
         "pooling_mode='lasttoken' is not supported. Supported: one of mean, cls, max"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pooling_mode='cls and mean' is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pooling_mode='weightedmean' is not supported"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case=True is not supported"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length=-1 is not supported"),
        ("config_sentence_transformers.json", {"prompts": {"query": "ask: "}, "default_prompt_name": "query"},
         "default_prompt_name='query' is not supported"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "module_input_name='token_embeddings'"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused(file, value, sentence, tmp_path):
    folder_of("bert", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    old = json.loads(path.read_text()) if path.exists() and isinstance(value, dict) and file != "modules.json" else {}
    write(path, old | value if isinstance(value, dict) else value)
    with pytest.raises(zoo.ZooError, match=sentence):
        zoo.load(tmp_path)


def test_other_architectures_and_missing_tokenizers_are_refused(tmp_path):
    folder_of("bert", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(zoo.ZooError, match=r"has no tokenizer\.json, without which texts have no vectors"):
        zoo.load(tmp_path)
    drawn("gpt_neox").save_pretrained(tmp_path)
    with pytest.raises(zoo.ZooError, match=r"model_type='gpt_neox' is not supported .* Supported: bert, roberta"):
        zoo.load(tmp_path)
