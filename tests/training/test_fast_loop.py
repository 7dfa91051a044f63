"""The zoo's training loop does what Lightning's does, bit for bit, and steps aside where it cannot."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import SPECS, make
from tests.contracts.test_resume import assert_equal, fit
from zoo.config.compose import compose
from zoo.runs.folder import RunFolder
from zoo.training import fast_loop
from zoo.training.callbacks.nan_guard import NonFiniteGuard
from zoo.training.context import TrainingContext
from zoo.training.fast_loop import FastTrainingLoop, NullProfiler, install_fast_loop, optimizer_step
from zoo.training.train import build_data, build_model
from zoo.training.trainer import build_trainer

NAMES = [("ae", "image"), ("vae", "vector"), ("wgan_gp", "image"), ("gpt", "tokens"), ("gmm", "vector")]


class Spy(L.Callback):
    """Records the order of all hooks, and whether the fast loop was enabled."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.enabled: set[bool] = set()

    def on_train_batch_start(self, trainer, *_):
        self.said.append("batch")
        self.enabled.add(getattr(trainer.fit_loop.epoch_loop, "enabled", False))

    def on_before_zero_grad(self, *_):
        self.said.append("zero_grad")

    def on_before_backward(self, trainer, module, loss):
        assert loss.grad_fn is not None
        self.said.append("backward")

    def on_after_backward(self, *_):
        self.said.append("gradient")

    def on_before_optimizer_step(self, trainer, module, optimizer):
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.said.append("step")

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.said.append(f"end {sorted(outputs)}")

    def on_train_epoch_end(self, *_):
        self.said.append("epoch")

    def on_validation_start(self, *_):
        self.said.append("validation")


@pytest.mark.parametrize(("name", "key"), NAMES)
def test_it_ends_where_lightnings_ends(name: str, key: str, tmp_path: Path) -> None:
    """The same checkpoints and the same table, to the bit; the same hooks in the same order."""
    ours, theirs = Spy(), Spy()
    one = fit(make(name, key), tmp_path / "ours", ours, log_every_n_steps=2)
    two = fit(make(name, key), tmp_path / "lightning", theirs, enabled=False, log_every_n_steps=2)
    assert_equal(one, two)
    assert ours.said == theirs.said
    assert ours.enabled == {name != "gmm"}, "a model that is fitted has no optimizer: Lightning's own way"
    assert theirs.enabled == {False}


@pytest.mark.parametrize(("name", "key"), [("ae", "image"), ("gan", "vector")])
def test_other_releases_train_by_lightnings_loop(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without private names, checkpoints and table are the same."""
    one = fit(make(name, key), tmp_path / "supported")
    monkeypatch.setattr(fast_loop, "SUPPORTED", "1.9.")
    spy = Spy()
    two = fit(make(name, key), tmp_path / "other", spy)
    assert spy.enabled == {False}
    assert_equal(one, two)


@pytest.mark.parametrize("supported", [True, False])
def test_accumulating_batches_log_rows_in_supported_releases(
    supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not supported:
        monkeypatch.setattr(fast_loop, "SUPPORTED", "1.9.")
    run = fit(make("ae", "vector"), tmp_path / "run", accumulate_grad_batches=2)
    assert run.last.is_file()
    steps = set(logged_steps(run.folder / "metrics.csv"))
    assert steps == {str(step) for step in (range(10) if supported else range(5))}


def logged_steps(table: Path) -> list[str]:
    """Steps of the rows of metrics.csv with values of training batches."""
    with table.open() as file:
        return [row["step"] for row in csv.DictReader(file) if row.get("train/loss") or row.get("train/loss_d")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_clips_as_lightning_does(precision: str, tmp_path: Path) -> None:
    clip = {"gradient_clip_val": 1e-3, "log_every_n_steps": 2, "precision": precision}
    runs = [fit(make("ae", "vector"), tmp_path / str(enabled), enabled=enabled, **clip) for enabled in (True, False)]
    assert_equal(*runs)
    free = fit(make("ae", "vector"), tmp_path / "free", **(clip | {"gradient_clip_val": None}))
    assert (free.folder / "metrics.csv").read_bytes() != (runs[0].folder / "metrics.csv").read_bytes()


def test_players_clip_in_half_precision_too(tmp_path: Path) -> None:
    """Lightning refuses to clip for an optimizer of one kernel in mixed precision, as there could be a loss scaler."""
    torch.manual_seed(0)
    model = zoo.create_model("gan", data=SPECS["image"], clip=0.1)
    norms: list[float] = []
    monitored = model.on_before_optimizer_step

    def after(optimizer):
        monitored(optimizer)
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())

    model.on_before_optimizer_step = after
    fit(model, tmp_path / "run", precision="bf16-mixed")
    assert len(norms) == 20
    assert max(norms) < 0.1 + 1e-3


@pytest.mark.parametrize(
    "options",
    [{"accumulate_grad_batches": 2}, {"strategy": "ddp_fork", "devices": 2}],
    ids=lambda options: next(iter(options)),
)
def test_it_steps_aside(options: dict, tmp_path: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, max_steps=1, **({"devices": 1} | options))
    install_fast_loop(trainer)
    trainer.strategy.connect(make("ae", "vector"))
    trainer.strategy._optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)]
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, FastTrainingLoop)
    assert not loop.is_supported()


def test_a_model_of_somebody_elses_goes_lightnings_way(tmp_path: Path) -> None:
    """A model that overrides hooks, and one that logs epoch means in a training step."""

    class Hooked(type(make("ae", "vector"))):
        def on_train_batch_end(self, *_):
            self.ended = getattr(self, "ended", 0) + 1

    torch.manual_seed(0)
    model = Hooked(SPECS["vector"])
    spy = Spy()
    fit(model, tmp_path / "hooked", spy)
    assert spy.enabled == {False}
    assert model.ended == 10


def test_means_of_an_epoch_are_logged(tmp_path: Path) -> None:
    class Averaging(type(make("ae", "vector"))):
        def training_step(self, batch, batch_idx):
            self.log("mean", float(batch_idx), on_step=False, on_epoch=True, batch_size=1)
            self.log("each", float(batch_idx))
            return super().training_step(batch, batch_idx)

    tables = []
    for enabled in (True, False):
        torch.manual_seed(0)
        run = fit(Averaging(SPECS["vector"]), tmp_path / str(enabled), enabled=enabled)
        tables.append((run.folder / "metrics.csv").read_text())
    assert tables[0] == tables[1]
    assert "mean" in tables[0].splitlines()[0]


class Waits(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts reads of a number by the host: on a GPU each is a wait for everything that was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


class Counting(L.Callback):
    """Counts within some batches; first in the list and last in the list it covers all of them."""

    def __init__(self, mode, batches) -> None:
        self.mode, self.batches, self.inside = mode, batches, False

    def on_train_batch_start(self, trainer, module, batch, index):
        if module.step in self.batches:
            self.mode.__enter__()
            self.inside = True

    def teardown_batch(self) -> None:
        if self.inside:
            self.mode.__exit__(None, None, None)
            self.inside = False


class Closing(L.Callback):
    def __init__(self, counting: Counting) -> None:
        self.counting = counting

    def on_train_batch_end(self, *_):
        self.counting.teardown_batch()


@pytest.mark.parametrize(("name", "key"), [("ae", "image"), ("vae", "image"), ("gan", "image"), ("gpt", "tokens")])
def test_no_step_waits_for_the_device(name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where `NonFiniteGuard` does not look at every batch; the batch after a logged one is counted too."""
    monkeypatch.setattr(NonFiniteGuard, "on_train_start", lambda *_: None)
    waits = Waits()
    counting = Counting(waits, range(2, 7))
    fit(make(name, key), tmp_path / "run", counting, Closing(counting), log_every_n_steps=8)
    assert waits.found == []


def test_one_that_waits_is_found(tmp_path: Path) -> None:
    class Curious(L.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            float(next(module.parameters()).detach().sum())

    waits = Waits()
    counting = Counting(waits, [2])
    fit(make("ae", "vector"), tmp_path / "run", Curious(), counting, Closing(counting), log_every_n_steps=8)
    assert "aten._local_scalar_dense.default" in waits.found


@pytest.mark.parametrize(("name", "key"), [("ae", "image"), ("gan", "image"), ("gpt", "tokens")])
def test_an_optimizer_takes_one_kernel(name: str, key: str) -> None:
    """However many parameters there are; Muon's matrices are multiplied besides."""
    from tests.cli.test_bench import Data
    from zoo.benchmarks.reference_loop import ReferenceLoop

    model = make(name, key)
    ReferenceLoop(model, Data(SPECS[key])).run(2)
    configured = model.configure_optimizers()
    kernels: list[str] = []

    class Kernels(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kernels.append(func._overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    players = configured if isinstance(configured, tuple) else (configured,)
    optimizers = [player["optimizer"] for player in players]
    assert len(optimizers) == (2 if name == "gan" else 1)
    for optimizer in optimizers:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            p.grad = torch.ones_like(p)
        optimizer.step()  # creates its state
        with Kernels():
            optimizer.step()
    fused = [k for k in kernels if "fused_adam" in k]
    groups = sum(not group.get("muon", False) for optimizer in optimizers for group in optimizer.param_groups)
    assert len(fused) == groups
    assert not {"addcdiv_", "addcmul_", "sqrt"} & set(kernels), "nothing for each parameter"


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_step_of_an_optimizer_is_its_own(scheduled: bool) -> None:
    """Equal weights without torch's profiling record; hooks and a replaced `step` are called."""

    def trained(step, disturb=lambda optimizer: None) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.arange(3.0))
        optimizer = torch.optim.AdamW([weight], 0.1)
        if scheduled:
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5)
        disturb(optimizer)
        weight.grad = torch.ones(3)
        step(optimizer)
        return weight.detach()

    torch.testing.assert_close(trained(optimizer_step), trained(lambda o: o.step()), rtol=0, atol=0)
    said: list[str] = []
    trained(optimizer_step, lambda o: o.register_step_pre_hook(lambda *_: said.append("before")))
    trained(optimizer_step, lambda o: o.register_step_post_hook(lambda *_: said.append("after")))
    trained(optimizer_step, lambda o: setattr(o, "step", lambda: said.append("instead")))
    assert said == ["before", "after", "instead"]


@pytest.mark.parametrize("fast", [True, False])
def test_a_setting_turns_it_off(fast: bool, tmp_path: Path) -> None:
    cfg = compose("model=ae", "data=moons", "trainer=smoke", f"trainer.fast_loop={str(fast).lower()}")
    data = build_data(cfg)
    model, run = build_model(cfg, data), RunFolder(tmp_path)
    trainer = build_trainer(TrainingContext(cfg, run, model, data))
    assert isinstance(trainer.fit_loop.epoch_loop, FastTrainingLoop) == fast
    assert isinstance(trainer.profiler, NullProfiler) == fast


def test_callbacks_are_left_as_they_were(tmp_path: Path) -> None:
    """Nothing is written into a user's callback."""

    class Quiet(L.Callback):
        pass

    callback = Quiet()
    fit(make("ae", "vector"), tmp_path / "run", callback)
    assert vars(callback).keys() <= {"log", "log_dict"}, "which Lightning attaches"
