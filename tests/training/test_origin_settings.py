"""`init_from` takes the settings that the weights were trained with, and refuses others by name."""

import json

import pytest
import torch

import zoo
from tests.interop.huggingface.test_load import drawn
from zoo.config.compose import compose
from zoo.core.spaces import Vector
from zoo.interop.loading import load
from zoo.runs.folder import RunFolder
from zoo.training.train import build_model, train
from zoo.training.warm_start import adopt_settings, find_warm_start

SMOKE = ["trainer=smoke", "data.batch_size=16", "trainer.max_steps=1", "trainer.val_check_interval=1"]
GPT = ["model=gpt", "model.backbone.d_model=16", "model.backbone.n_layers=1", "data=arithmetic", "data.context=20"]
OTHER = {
    "n_heads": 4, "rope_theta": 77.0, "mlp": "gelu", "qk_norm": False, "norm_eps": 0.1, "position_encoding": "alibi",
    "softcap": 5.0, "window": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def pre(tmp_path_factory):
    """A model whose settings differ from the recipe's in everything that shapes do not show."""
    folder = tmp_path_factory.mktemp("origin") / "pre"
    train(compose(*SMOKE, *GPT, *(f"model.backbone.{k}={v}" for k, v in OTHER.items())), str(folder))
    return folder


def warm(place, *words, tmp_path):
    """The model that a training begins with."""
    cfg = compose(*SMOKE, *words, f"init_from={place}")
    origin = find_warm_start(cfg, RunFolder(tmp_path / "new"))

    class Data:
        spec = origin.spec

        def check_model(self, model):
            """Nothing."""

    return build_model(cfg, Data(), origin), origin.model


@torch.no_grad()
def test_settings_of_the_origin_are_taken(pre, tmp_path):
    model, origin = warm(pre, *GPT, tmp_path=tmp_path)
    assert {k: model.hparams["backbone"][k] for k in OTHER} == OTHER
    tokens = torch.randint(model.spec.tokens.vocab_size, (2, 20))
    assert torch.equal(model.eval().net(tokens), origin.net(tokens))
    plain = zoo.create_model("gpt", data=model.spec, backbone={"d_model": 16, "n_layers": 1})
    plain.load_state_dict(model.state_dict())
    assert (plain.net(tokens) - origin.net(tokens)).abs().max() > 1e-3, "the control: other settings differ"


@pytest.mark.parametrize("word", ["model.backbone.n_heads=2", "model.backbone.rope_theta=10000.0"])
def test_a_contradiction_is_refused_by_name(word, pre, cli):
    result = cli(*SMOKE, *GPT, word, f"init_from={pre}", "hydra.run.dir=new")
    key = word.split("=")[0].replace("/", ".")
    assert result.code != 0
    assert f"{key}" in result.err
    assert "were trained with" in result.err


@pytest.mark.parametrize(
    "given", [["model.backbone.n_heads=2"], ["model.backbone.rope_theta=10000.0"], {"backbone": {"n_heads": 2}}]
)
def test_a_contradiction_from_python_is_refused_by_name(given, pre, tmp_path):
    words, settings = (given, {}) if isinstance(given, list) else ([], {"model": given})
    cfg = compose(*SMOKE, *GPT, *words, f"init_from={pre}", **settings)
    with pytest.raises(zoo.ZooError, match=r"model\.backbone\.(n_heads=2|rope_theta=10000\.0): .* were trained with"):
        find_warm_start(cfg, RunFolder(tmp_path / "new"))


def test_what_agrees_and_dropout_may_be_given_and_a_run_is_resumed(pre, cli, tmp_path):
    words = [
        "model.backbone.n_heads=4",
        "model.backbone.dropout=0.1",
        "model.optimizer.lr=0.1",
        "model.temperature=0.5",
    ]
    result = cli(*SMOKE, *GPT, *words, f"init_from={pre}", "hydra.run.dir=new")
    assert result.code == 0, result.err
    made = load(tmp_path / "new")
    assert {k: made.hparams["backbone"][k] for k in OTHER} == OTHER
    assert (made.hparams["backbone"]["dropout"], made.hparams["temperature"]) == (0.1, 0.5)
    result = cli("resume=new", "trainer.max_steps=2")
    assert result.code == 0, result.err
    assert load(tmp_path / "new").hparams["backbone"] == made.hparams["backbone"]


@pytest.mark.parametrize(
    ("kind", "recipe"), [("bert", "bert"), ("llama", "llama"), ("gpt2", "gpt"), ("t5_gated", "t5")]
)
@torch.no_grad()
def test_pretrained_folders_begin_where_they_end(kind, recipe, tmp_path):
    drawn(kind).save_pretrained(tmp_path / "theirs")
    model, origin = warm(tmp_path / "theirs", f"model={recipe}", tmp_path=tmp_path)
    tokens = torch.randint(1, 99, (2, 40))
    batch = (tokens, tokens) if recipe == "t5" else (tokens,)
    call = "predict" if recipe == "t5" else "net"
    want = getattr(origin, call)(*batch)
    assert want.std() > 0.1
    assert torch.equal(getattr(model.eval(), call)(*batch), want)


def test_a_recipe_keeps_its_objective():
    spec = zoo.DataSpec(Vector(2), name="points")
    gan = zoo.create_model("gan", data=spec, generator="mlp", discriminator="mlp")
    other = compose("model=wgan_gp", "data=moons")
    before = dict(other.model)
    adopt_settings(other, gan.hparams, "run")
    assert {k for k, v in before.items() if other.model[k] != v} == {"generator", "discriminator"}


@pytest.mark.parametrize(("mask", "code"), [("true", 0), ("false", 1)])
def test_packed_rows_need_a_document_mask(mask, code, cli, tmp_path):
    rows = [{"prompt": f"{i}+1=", "response": f"{i + 1}"} for i in range(300)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ["data=instructions", "data.path=rows.jsonl", "data.packing=true", "data.context=32", "data.batch_size=2"]
    words = ["trainer=smoke", "trainer.max_steps=1", *GPT[:3], *data, f"model.document_mask={mask}"]
    result = cli(*words, "hydra.run.dir=new")
    assert result.code == code, result.err
    assert code == 0 or "data.packing=true" in result.err
