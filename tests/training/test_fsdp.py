"""Sharded weights: two processes learn what one does, each holds half, and files are those of one process."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import zoo
from tests.cli.in_processes import SMALL
from tests.cli.test_distributed import ENVIRONMENT, ROOT, table
from tests.contracts.specs import CASES, class_of, examples, make
from tests.training import fsdp_processes
from zoo.config.compose import compose
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.plain import Text
from zoo.runs.folder import RunFolder
from zoo.training.callbacks.sample_logger import SampleLogger
from zoo.training.context import TrainingContext
from zoo.training.fsdp import ShardedStrategy, blocks, check_shardable, is_sharded, local, norm_of, shard, whole
from zoo.training.trainer import build_trainer

SPEC = DataSpec(Tokens(12, 20), None, "texts")


# -- one process: a mesh of one, whose weights are sharded too --------------------------------------------------------


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def texts() -> Batch:
    """Random windows."""
    x = torch.randint(20, (4, 12), generator=torch.Generator().manual_seed(0))
    return Batch(x, x.roll(-1, 1))


def stepped(model: zoo.Model, batch: Batch | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of a step, and gradients by name."""
    torch.manual_seed(0)
    model.log_terms = lambda terms: None  # type: ignore[method-assign]  # there is no trainer
    loss = model.train().training_step(batch or texts(), 0)
    loss.backward()
    return loss.detach(), {k: whole(p.grad) for k, p in model.named_parameters() if p.grad is not None}


CAUSAL = [name for name in registry.names("backbone") if hasattr(registry.get("backbone", name), "prefill")]
BACKBONES = [{"name": name} for name in CAUSAL] + [
    {"name": "transformer"},  # which a function builds
    {"name": "transformer", "gradient_checkpointing": True, "tie_weights": False},
    {"name": "transformer", "n_experts": 3, "n_active_experts": 1},
]


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: "-".join(map(str, b.values())))
def test_a_step_with_sharded_weights_is_the_plain_step(backbone: dict, group: None) -> None:
    """Loss and every gradient of every backbone, bit for bit; the weights outside of a step are parts."""

    def made() -> zoo.Model:
        torch.manual_seed(1)
        model = registry.build("model", {"name": "language_model", "backbone": backbone}, SPEC)
        for p in model.parameters():  # no branch is zero
            nn.init.normal_(p, std=0.1)
        return model

    compare(made)


SHARDABLE = ("bert", "language_model")


def test_no_other_model_is_shardable() -> None:
    assert {name for name in registry.names("model") if registry.get("model", name).shardable} == set(SHARDABLE)


@pytest.mark.parametrize(("name", "key"), [case for case in CASES if class_of(case[0]) in SHARDABLE])
def test_every_shardable_recipe_has_the_plain_step(name: str, key: str, group: None) -> None:
    compare(lambda: make(name, key), examples(make(name, key).spec, 8))


def compare(made: Callable[[], zoo.Model], batch: Batch | None = None) -> None:
    """Compare a step with sharded weights with one of whole weights."""
    expected_loss, expected = stepped(made(), batch)
    model = made()
    shard(model, torch.device("cpu"), 1)
    assert all(is_sharded(p) for p in model.parameters())
    loss, found = stepped(model, batch)
    assert all(is_sharded(p) for p in model.parameters()), "released after the step"
    assert loss == expected_loss
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


def test_blocks_are_the_outermost_ones() -> None:
    model = registry.build(
        "model", {"name": "language_model", "backbone": {"name": "transformer", "n_layers": 3, "n_experts": 2}}, SPEC
    )
    assert [id(block) for block in blocks(model)] == [id(block) for block in model.net.blocks]
    without_forward = registry.build("model", {"name": "language_model", "backbone": "mamba2"}, SPEC)
    assert blocks(without_forward) == []


def test_every_causal_backbone_is_tested() -> None:
    assert {"transformer", "rnn", "lstm", "gru", "mamba2"} <= {each["name"] for each in BACKBONES}


def test_norms_and_parts_of_plain_tensors() -> None:
    a, b = torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])
    assert norm_of([a, b]) == 5
    assert whole(a) is a
    assert local(a) is a


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "lion"])
def test_a_saved_optimizer_state_continues(optimizer: str, group: None) -> None:
    """Whole tensors in the state; after loading it the next update is the same. Without it, it is another."""

    class Strategy(ShardedStrategy):
        root_device, is_global_zero = torch.device("cpu"), True  # type: ignore[assignment]

    def made() -> tuple[zoo.Model, torch.optim.Optimizer]:
        torch.manual_seed(1)
        settings = {"name": "language_model", "optimizer": optimizer}
        model = registry.build("model", settings, SPEC)
        shard(model, torch.device("cpu"), 1)
        assert model.optimizer_config is not None
        return model, model.optimizer_config.build([{"params": list(model.parameters())}], fused=True)

    model, built = made()
    stepped(model)
    built.step()
    strategy = Strategy()
    saved = copy.deepcopy(strategy.optimizer_state(built))
    assert not any(is_sharded(v) for s in saved["state"].values() for v in s.values() if isinstance(v, torch.Tensor))
    weights = {key: whole(value).clone() for key, value in model.state_dict().items()}

    def continued(load: bool) -> torch.Tensor:
        again, other = made()
        with torch.no_grad():
            for key, p in again.named_parameters():
                local(p).copy_(weights[key])
        if load:
            strategy._optimizers = [other]
            strategy.load_optimizer_state_dict({"optimizer_states": [saved]})
        stepped(again)
        other.step()
        return torch.cat([whole(p).detach().flatten() for p in again.parameters()])

    built.zero_grad()
    stepped(model)
    built.step()
    expected = torch.cat([whole(p).detach().flatten() for p in model.parameters()])
    assert torch.equal(continued(load=True), expected)
    assert not torch.equal(continued(load=False), expected)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=gan"], "steps its optimizers itself"),
        (["model=vae"], "model=vae is not tested with sharded weights"),
        (["model=gpt", "data=stdlib"], "model.optimizer=muon: needs whole matrices"),
        (["model=gpt", "data=stdlib", *SMALL[2:3], "trainer.compile=true"], "trainer.compile=True: not with"),
        (["model=gpt", "data=stdlib", *SMALL[2:3], "trainer.precision=16-mixed"], "its loss scaler reads whole"),
        (["model=gpt", "data=stdlib", *SMALL[2:3], "callbacks=ema"], "callbacks=ema: averages whole weights"),
    ],
    ids=lambda w: w if isinstance(w, str) else " ".join(w),
)
def test_what_cannot_be_sharded_is_refused(words: list[str], sentence: str) -> None:
    cfg = compose(*words, "trainer=fsdp", "trainer.accelerator=cpu")
    spec = zoo.create_data("digits").spec if "data=stdlib" not in words else SPEC
    settings = {key: value for key, value in cfg.model.items() if key not in ("training", "tokenizer")}
    model = registry.build("model", plain_values(settings), spec)
    with pytest.raises(ConfigError, match=sentence):
        build_trainer(TrainingContext(cfg, RunFolder("unused"), model, zoo.create_data("digits")))


@pytest.mark.parametrize("weight", [torch.zeros(()), torch.zeros(4, 3).T], ids=["without dimensions", "not contiguous"])
def test_a_weight_that_torch_cannot_shard_is_named(weight: torch.Tensor) -> None:
    model = registry.build("model", {"name": "language_model", "optimizer": "adamw"}, SPEC)
    model.extra = nn.Parameter(weight)
    cfg = compose("model=gpt", "data=stdlib", "model/optimizer=adamw", "trainer=fsdp")
    with pytest.raises(ConfigError, match="torch cannot shard extra of model=language_model"):
        check_shardable(cfg, model, {})


def test_callbacks_with_the_whole_model_are_left_out() -> None:
    cfg = compose("model=gpt", "data=stdlib", "model/optimizer=adamw", "trainer=fsdp", "trainer.accelerator=cpu")
    model = registry.build("model", {"name": "language_model", "optimizer": "adamw"}, SPEC)
    trainer = build_trainer(TrainingContext(cfg, RunFolder("unused"), model, zoo.create_data("digits")))
    assert isinstance(trainer.strategy, ShardedStrategy)
    assert trainer.strategy.off == ["sample_logger"]
    assert not any(isinstance(each, SampleLogger) for each in trainer.callbacks)


def plain_values(settings: dict) -> dict:
    """Plain values of a configuration."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(settings), resolve=True)  # type: ignore[return-value]


def test_fit_refuses_sharded_weights() -> None:
    with pytest.raises(ConfigError, match=r"strategy=fsdp: zoo\.fit returns a whole model"):
        zoo.fit("gpt", "stdlib", strategy="fsdp")


# -- two processes -----------------------------------------------------------------------------------------------------


def launch(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.training.fsdp_processes", str(folder), *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with 32 samples a batch, and two with 16, sharded and not."""
    folder = tmp_path_factory.mktemp("fsdp")
    (folder / "text.txt").write_text((ROOT / "LICENSE").read_text())
    (folder / "said").write_text(launch(folder, "fsdp,ddp", "16"))
    with pytest.MonkeyPatch.context() as patch:  # puts back what `run` changes
        patch.setattr(Text, "fetch", Text.fetch)
        fsdp_processes.run(folder, "auto", 32, "one")
        fsdp_processes.run(folder, "auto", 16, "other")
    return folder


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(trained: Path) -> None:
    """Losses, gradient norms and learning rates. Another batch has other losses. Callbacks that are off are named."""
    one, two, other = (table(trained / name) for name in ("one", "fsdp", "other"))
    names = {k for k in one if k[0].partition("/")[0] in ("train", "val", "grad_norm", "lr")}
    assert len(names) >= 6 * 3
    assert names <= two.keys()

    def furthest(found: dict[tuple[str, int], float]) -> float:
        return max(abs(one[k] - found[k]) / max(abs(one[k]), 0.1) for k in names)

    assert furthest(two) < 1e-4
    assert furthest(other) > 1e-3
    assert "sharded  weights, gradients and optimizer state; off: sample_logger" in (trained / "said").read_text()


@pytest.mark.slow
def test_the_checkpoint_is_that_of_one_process(trained: Path) -> None:
    """It loads, with the weights and the optimizer state of one process, whole."""
    one, two = (torch.load(trained / name / "last.ckpt", weights_only=True) for name in ("one", "fsdp"))
    model = zoo.load(trained / "fsdp" / "last.ckpt")
    assert model.state_dict().keys() == two["state_dict"].keys() == one["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(model.state_dict()[key], two["state_dict"][key])
        torch.testing.assert_close(two["state_dict"][key], value, rtol=1e-3, atol=1e-4)
    states = one["optimizer_states"][0]["state"], two["optimizer_states"][0]["state"]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        for key, value in state.items():
            torch.testing.assert_close(states[1][number][key], value, rtol=1e-2, atol=1e-4)
    assert model.sample(2, generator=torch.Generator().manual_seed(0)).shape[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "part"), [("fsdp", 0.5), ("ddp", 1.0)])
def test_each_process_holds_its_part(strategy: str, part: float, trained: Path) -> None:
    """Half of the weights and of the optimizer state. Negative control: without sharding each holds everything."""
    held = [json.loads((trained / f"held-{strategy}-{rank}.json").read_text()) for rank in (0, 1)]
    for name in ("weights", "state"):
        total = held[0][name][1]
        assert sum(each[name][0] for each in held) == 2 * part * total
        assert all(abs(each[name][0] - part * total) < 0.02 * total for each in held)


@pytest.mark.slow
def test_a_resumed_training_is_the_same(trained: Path) -> None:
    """From the checkpoint after three batches: equal weights and optimizer state, bit for bit."""
    again = trained / "again"
    shutil.copytree(trained / "fsdp", again)
    (again / "best.ckpt").unlink()
    os.replace(again / "previous.ckpt", again / "last.ckpt")
    before = torch.load(again / "last.ckpt", weights_only=True)
    assert before["global_step"] == 3
    launch(trained, "fsdp", "16", str(again))
    end, resumed = (torch.load(run / "last.ckpt", weights_only=True) for run in (trained / "fsdp", again))
    assert resumed["global_step"] == 6
    for key, value in end["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value)
    for number, state in end["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(resumed["optimizer_states"][0]["state"][number][key], value)
