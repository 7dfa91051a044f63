"""`init_from` on the command line: every stage, and errors."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

import zoo
from tests.contracts.specs import slow
from tests.fault_injection.equal import unequal
from zoo.cli.main import main
from zoo.config.compose import compose
from zoo.core import registry
from zoo.core.signature import Component
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.interop.huggingface import save
from zoo.training.train import train

SMOKE = ["trainer=smoke", "data.batch_size=16", "trainer.max_steps=2", "trainer.val_check_interval=1"]
FEW = "model.n_eval_prompts=16"
DORA = ["model.lora_rank=2", "model.lora_dora=true", "model.lora_rslora=true", 'model.lora_targets=[query,"*.mlp.*"]']
Stage = Annotated[str | dict[str, Any], Component("model", pretrained=True)]
GPT = ["model=gpt", "model.backbone.d_model=16", "model.backbone.n_layers=1", "data=arithmetic", "data.context=20"]


@pytest.fixture(scope="module")
def pre(tmp_path_factory) -> Path:
    """A language model of sums."""
    folder = tmp_path_factory.mktemp("origin") / "pre"
    train(compose(*SMOKE, *GPT), str(folder))
    return folder


@pytest.fixture(scope="module")
def ae(tmp_path_factory) -> Path:
    """An autoencoder of points."""
    folder = tmp_path_factory.mktemp("origin") / "ae"
    train(compose(*SMOKE, "model=ae", "data=moons"), str(folder))
    return folder


@pytest.fixture
def run(cli, tmp_path: Path) -> Callable[..., Path]:
    """Trains into a folder of that name, which has to go well."""

    def call(name: str, *arguments: str) -> Path:
        result = cli(*SMOKE, f"hydra.run.dir={name}", *arguments)
        assert result.code == 0, result.err
        return tmp_path / name

    return call


def columns(run: Path) -> set[str]:
    with (run / "metrics.csv").open() as file:
        return set(next(csv.reader(file)))


def test_from_pretraining_to_rewards(pre, run, cli) -> None:
    sft = run("sft", "model=sft", FEW, f"init_from={pre}", "model.lora_rank=2")
    policy = zoo.load(sft).hparams["policy"]
    assert policy == {"name": "language_model", **zoo.load(pre).hparams}
    first, last = zoo.load(pre), zoo.load(sft)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, last.policy.state_dict()[name]), "adapters alone are trained"
    assert last.spec.shape == first.spec.shape, "the context came along"
    assert {"val/accuracy", "val/bits_per_byte"} <= columns(sft)
    dpo = run("dpo", "model=dpo", FEW, "init_from=sft")
    reference = zoo.load(dpo).reference
    merged = last.merged()
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(reference.state_dict()[name], weight)
    assert {"val/accuracy", "val/reward_accuracy", "val/reward_margin"} <= columns(dpo)
    rewarded = ["model.max_new_tokens=5", "model/reward=arithmetic", "init_from=dpo/last.ckpt"]
    grpo = run("grpo", "model=grpo", FEW, *rewarded)
    assert {"val/reward", "val/accuracy"} <= columns(grpo)
    on = run("on", *GPT, "init_from=grpo", "model.optimizer.lr=1e-9", "model.optimizer.muon_lr=1e-9")
    torch.testing.assert_close(zoo.load(on).net.embedding.weight, zoo.load(grpo).net.embedding.weight)
    for name in (sft, dpo, grpo):
        assert "init_from: " in (name / "config.yaml").read_text()
    for name in (sft, dpo):
        result = cli("evaluate", str(name), "--split", "val", entry=main)
        assert result.code == 0, result.err
        scores = json.loads((name / "metrics.json").read_text())["best.ckpt"]["metrics"]
        assert "exact_greedy@1021_val" in scores
        assert ("nats_per_char15@answers_val" in scores) is (name == sft), "preferences are no likelihood"
    for name in (dpo, grpo):
        result = cli("sample", str(name), "--prompt", "1+1=", "max_new_tokens=3", entry=main)
        assert result.code == 0, result.err
        assert result.out.startswith("1+1=")
    assert cli("export", str(sft), entry=main).code == 0
    exported = zoo.load(sft / "export" / "model.safetensors")
    assert exported.generate(["2+2="], seed=0) == zoo.load(sft).generate(["2+2="], seed=0)


@pytest.mark.parametrize(
    "stage",
    [
        ["model=sft", *DORA],
        *slow(["model=dpo"]),
        ["model=grpo", "model.beta=0.1", "model.max_new_tokens=5"],
    ],
)
def test_a_stage_is_resumed_without_its_origin(stage: list[str], pre, run, cli, tmp_path) -> None:
    """Resuming is bit-exact, and requires the other run only if there is no checkpoint yet."""
    shutil.copytree(pre, tmp_path / "mine")
    same = [*stage, FEW, "init_from=mine", "model.optimizer.lr=0.01", "model.optimizer.schedule=constant"]
    straight = run("straight", *same)
    begun = run("begun", *same, "trainer.max_steps=1")
    shutil.rmtree(tmp_path / "mine")
    assert unequal(straight / "last.ckpt", begun / "last.ckpt") != []
    result = cli(f"resume={begun}", "trainer.max_steps=2")
    assert result.code == 0, result.err
    assert unequal(straight / "last.ckpt", begun / "last.ckpt") == []
    for file in begun.glob("*.ckpt"):
        file.unlink()
    refused = cli(f"resume={begun}", "trainer.max_steps=2")
    assert "there is no run or checkpoint at mine" in refused.err


def test_a_stage_without_an_origin_says_so(pre, cli) -> None:
    small = "model.policy={name: language_model, backbone: {name: transformer, d_model: 16, n_layers: 1, n_heads: 1}}"
    said = "model.policy: begins with random weights. Set init_from=RUN"
    assert said in (told := cli("model=sft", small, *SMOKE)).err + told.out
    assert said not in (told := cli("model=sft", f"init_from={pre}", *SMOKE)).err + told.out
    refused = cli("model=sft", small, *SMOKE, "data.batch_size=100000")
    assert refused.code == 1
    assert "data.batch_size=100000" in refused.err
    assert said not in refused.err + refused.out, "a refusal stands alone"


def test_other_models_take_weights_too(ae, run) -> None:
    second = run("second", "model=ae", "data=moons", "seed=1", f"init_from={ae}/last.ckpt", "model.optimizer.lr=1e-12")
    first = zoo.load(ae / "last.ckpt").encoder.state_dict()
    torch.testing.assert_close(zoo.load(second).encoder.state_dict(), first)
    other = run("other", "model=ae", "data=moons", "seed=1")
    assert any(not torch.allclose(w, first[k]) for k, w in zoo.load(other).encoder.state_dict().items())


def test_any_model_takes_a_pretrained_component(ae, tmp_path: Path) -> None:
    """A second stage over an autoencoder: the mechanism does not depend on a family, or on the name of the setting."""
    settings = [*SMOKE, "model=second_stage", "data=moons", f"init_from={ae}"]
    with registry.isolated():

        @zoo.register("model", "second_stage")
        class SecondStage(zoo.Model):
            def __init__(self, spec: zoo.DataSpec, *, first_stage: Stage = "ae", optimizer: zoo.Optimizer = "adamw"):
                super().__init__(spec)
                self.first_stage = self.build_component("first_stage", "model", spec).requires_grad_(False)
                self.scale = torch.nn.Parameter(torch.zeros(()))

            def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
                return {"loss": (batch.x - self.scale * self.first_stage.reconstruct(batch.x)).square().mean()}

        train(compose(*settings), str(tmp_path / "run"))
        second, first = zoo.load(tmp_path / "run"), zoo.load(ae)
        assert second.hparams["first_stage"] == {"name": "ae", **first.hparams}
        assert second.scale != 0
        for name, weight in first.state_dict().items():
            assert torch.equal(weight, second.first_stage.state_dict()[name])
        fresh = zoo.create_model("second_stage", data="moons").first_stage.state_dict()
        assert any(not torch.equal(weight, fresh[name]) for name, weight in first.state_dict().items())


MISTAKES = {
    "nothing there": (["model=sft", "init_from=nowhere"], "there is no run or checkpoint at nowhere"),
    "no text": (["model=sft", "init_from=ae"], "model=ae: learns image, vector or video data"),
    "two policies": (
        ["model=sft", "init_from=pre", "model.policy.backbone={name: lstm, d_model: 32}"],
        "Remove one",
    ),
    "another family": (["model=vae", "init_from=ae"], "weights do not fit model=vae. Take model=ae"),
    "other sizes": (
        ["model=gpt", "data=arithmetic", "init_from=pre", "model.backbone.d_model=32"],
        "model.backbone.d_model=32: the weights of init_from=pre were trained with 16",
    ),
    "no text data": (["model=sft", "data=digits", "init_from=pre"], "data=digits is not text"),
    "an unknown reward": (["model=grpo", "init_from=pre", "model.reward=exat"], "did you mean 'exact'"),
    "a bad pattern": (
        ["model=grpo", "init_from=pre", "model/reward=format", "model.reward.pattern='('"],
        "not a regular expression",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_said_in_one_sentence(mistake: str, pre, ae, cli, tmp_path) -> None:
    arguments, said = MISTAKES[mistake]
    (tmp_path / "pre").symlink_to(pre)
    (tmp_path / "ae").symlink_to(ae)
    result = cli(*SMOKE, "hydra.run.dir=new", *arguments)
    assert result.code == 1
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists(), "nothing is left"


def test_from_a_folder_of_the_hugging_face_format(run, tmp_path) -> None:
    tokenizer = BPE(min_frequency=1, vocab_size=280).fit(["1+2=3\n4-5=-1\n"])
    spec = zoo.DataSpec(Tokens(24, tokenizer.vocab_size, dumps(tokenizer)))
    given = zoo.create_model("llama", data=spec, backbone={"d_model": 16, "n_layers": 1, "n_heads": 2})
    save.save(given, tmp_path / "given")
    tuned = zoo.load(run("tuned", "model=sft", "init_from=given", "model.lora_rank=2"))
    assert tuned.policy.hparams["backbone"]["mlp"] == "swiglu"
    for name, weight in given.state_dict().items():
        assert torch.equal(weight, tuned.policy.state_dict()[name])
    save.export(tmp_path / "tuned", tmp_path / "again")
    merged = zoo.load(tmp_path / "tuned").merged()
    for name, weight in zoo.load(tmp_path / "again").state_dict().items():
        torch.testing.assert_close(weight, merged.state_dict()[name])
    assert [tuned.tokenizer.encode("1+2=")] == [tokenizer.encode("1+2=")]


def test_a_trained_reward_model_is_a_part_of_the_run(pre, run, cli, tmp_path) -> None:
    """`model.reward_model=RUN` beside `init_from=RUN`. A stopped run continues without both of them."""
    judge = run("judge", "model=reward_model", f"init_from={pre}", "model.optimizer.lr=0.1")
    assert {"val/accuracy", "val/loss"} <= columns(judge)
    same = ["model=ppo", FEW, f"init_from={pre}", "model.reward_model=judge", "model.max_new_tokens=3"]
    same += ["model.optimizer.schedule=constant"]
    straight = run("straight", *same)
    for name, weight in zoo.load(judge).state_dict().items():
        assert torch.equal(weight, zoo.load(straight).reward_model.state_dict()[name]), name
    assert zoo.load(judge).head.weight.any()
    begun = run("begun", *same, "trainer.max_steps=1")
    shutil.rmtree(tmp_path / "judge")
    result = cli(f"resume={begun}", "trainer.max_steps=2")
    assert result.code == 0, result.err
    assert unequal(straight / "last.ckpt", begun / "last.ckpt") == []
    result = cli(*SMOKE, *same[:-2], "model.reward_model=none", "hydra.run.dir=other")
    assert result.code == 1
    assert "none" in result.err
