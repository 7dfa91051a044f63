"""Bit-exact resume, for every model: a stopped and resumed run ends with the bits of an uninterrupted one.

The loader uses no worker processes: a thread prepares `prefetch` batches. Uninterrupted runs here prepare 0 batches
ahead, and resumed ones 2, so the tests also show that `prefetch` does not change the result.
"""

import os
import shutil
import signal
from functools import cache
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
from omegaconf import DictConfig

import zoo
from tests.contracts.specs import CASES, PAIRS, SPECS, class_of, examples, make
from tests.fault_injection.equal import unequal
from zoo.config.compose import compose
from zoo.runs.checkpoint import latest_intact, read_checkpoint
from zoo.runs.folder import RunFolder
from zoo.runs.loggers import RunCSVLogger
from zoo.training.callbacks.ema import EMACallback
from zoo.training.callbacks.graceful_stop import StopRequested
from zoo.training.components import build_callbacks
from zoo.training.context import TrainingContext
from zoo.training.fast_loop import install_fast_loop

EPOCH, VALIDATE, TOTAL = 4, 4, 10  # batches
STOPS = {2: "in the middle", 3: "in the last batch of an epoch", 4: "at the end of an epoch", 5: "in the second epoch"}


class Data(zoo.DataModule):
    def __init__(self, spec: zoo.DataSpec, prefetch: int) -> None:
        super().__init__(batch_size=8, seed=0)
        self.what, self.prefetch = spec, prefetch

    @property
    def spec(self) -> zoo.DataSpec:
        return self.what

    def load(self) -> None:
        world = 1 if self.trainer is None else self.trainer.world_size
        x, y = examples(self.spec, 8 * EPOCH * world + 3)
        self.train = x, y
        self.val = self.test = x[: 8 * world + 3], y[: 8 * world + 3]


class Copies(L.Callback):
    """Copy the newest checkpoint at each stop of a run."""

    def __init__(self, run: RunFolder, stops: tuple[int, ...]) -> None:
        self.run, self.stops = run, stops

    def on_train_batch_start(self, trainer, pl_module, *_) -> None:
        done = pl_module.step
        if done in self.stops and trainer.is_global_zero:
            shutil.copyfile(self.run.last, self.run.folder / f"{done}.ckpt")


class Signal(L.Callback):
    """Send SIGTERM to this process at the end of a batch."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if pl_module.step == self.after - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@cache
def configuration(every: int) -> DictConfig:
    """Compose the configuration, without callbacks that draw pictures: a checkpoint does not contain those."""
    off = [f"+callbacks.{name}=null" for name in ("sample_logger", "tensorboard_layout")]
    return compose(f"trainer.max_steps={TOTAL}", f"trainer.checkpoint_every={every or 'null'}", *off)


def fit(
    model: zoo.Model,
    folder: Path,
    *others: L.Callback,
    prefetch: int = 0,
    every: int = 0,
    enabled: bool = True,
    **options,
) -> RunFolder:
    """Train as `zoo.training.train` does, from the newest checkpoint in the folder if there is one.

    If `enabled` is false, Lightning's own loop trains.
    """
    run = RunFolder(folder)
    start = latest_intact(run)
    if start:
        run.truncate_logs(read_checkpoint(start)["run"])
    data = Data(model.spec, prefetch)
    context = TrainingContext(configuration(every), run, model, data)
    options = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1} | options
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(TOTAL), max_epochs=-1, val_check_interval=VALIDATE,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0, logger=RunCSVLogger(folder), enable_checkpointing=False,
        enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[*build_callbacks(context), *others],
        **options,
    )  # fmt: skip
    if enabled:
        install_fast_loop(trainer)
    torch.manual_seed(2 if start else 1)  # a new process has other random numbers
    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    return run


def stopped(straight: RunFolder, stop: int, folder: Path) -> Path:
    """The folder of a run that was killed some time after a checkpoint: rows that are too late, one of them torn."""
    folder.mkdir()
    shutil.copyfile(straight.folder / f"{stop}.ckpt", folder / "last.ckpt")
    (folder / "metrics.csv").write_bytes((straight.folder / "metrics.csv").read_bytes() + b"0,0.25,")
    return folder


def assert_equal(one: RunFolder, two: RunFolder) -> None:
    """The same checkpoints, and the same table, byte for byte."""
    for name in ("last.ckpt", "best.ckpt"):
        if (two.folder / name).exists():  # no best.ckpt where nothing after the stop was better
            assert unequal(one.folder / name, two.folder / name) == [], name
    assert (one.folder / "metrics.csv").read_bytes() == (two.folder / "metrics.csv").read_bytes()


# Vectors, tables, series and videos take other networks: once for each class, not for each recipe.
OTHER = ("vector", "table", "interactions", "series", "video")
DRAWN = ("image", "sounds", "pictures", "tokens", "preferences")
HELD = [
    (name, key) for name, key in CASES if key in DRAWN or (key in OTHER and zoo.model_info(name).registered == name)
]


# With Lightning's own loop (trainer.fast_loop=false): one case for each way of stepping.
ALONE = [("ae", "vector", False), ("wgan_gp", "image", False), ("gpt", "tokens", False), ("gmm", "vector", False)]
FIRST = {zoo.model_info(name).family: (name, key) for name, key in reversed(HELD) if name not in PAIRS}
# One pair for each class, and one for each family and kind of data; others are `slow`.
KEPT = {class_of(name): (name, key) for name, key in reversed(HELD)}
KEPT |= {zoo.model_info(name).family + key: (name, key) for name, key in reversed(HELD) if name not in PAIRS}
KEPT |= FIRST


def stops(name: str, key: str) -> list[int]:
    """All for one recipe of a family; for the others in the last batch of an epoch, and in the second epoch."""
    return [3, 5] if (name, key) in HELD and (name, key) not in FIRST.values() else list(STOPS)


@pytest.mark.parametrize(
    ("name", "key", "enabled"),
    [
        *(pytest.param(*case, True, marks=() if case in KEPT.values() else pytest.mark.slow) for case in HELD),
        *ALONE,
    ],
)
def test_a_resumed_run_equals_the_straight_one(name: str, key: str, enabled: bool, tmp_path: Path) -> None:
    check_stops(name, key, enabled, stops(name, key), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key"), [case for case in HELD if len(stops(*case)) < len(STOPS)])
def test_it_does_so_at_every_stop(name: str, key: str, tmp_path: Path) -> None:
    check_stops(name, key, True, sorted({*STOPS} - {*stops(name, key)}), tmp_path)


def check_stops(name: str, key: str, enabled: bool, chosen: list[int], folder: Path) -> None:
    """Train once to the end, and again from each stop."""
    run = RunFolder(folder / "straight")
    straight = fit(make(name, key), run.folder, Copies(run, tuple(chosen)), every=1, enabled=enabled)
    for stop in chosen:
        resumed = fit(make(name, key), stopped(straight, stop, folder / str(stop)), prefetch=2, enabled=enabled)
        assert_equal(straight, resumed)


@pytest.mark.parametrize(("name", "enabled"), [("ae", True), ("vae", True), ("gpt", True), ("vae", False)])
def test_an_average_resumes_too(name: str, enabled: bool, tmp_path: Path) -> None:
    """With the average of the weights in `state_dict` and the raw weights beside it."""
    key = "tokens" if name == "gpt" else "image"
    run = RunFolder(tmp_path / "straight")
    straight = fit(
        make(name, key), run.folder, Copies(run, tuple(STOPS)), EMACallback(half_life=50), every=1, enabled=enabled
    )
    assert read_checkpoint(straight.last)["ema"]["seen"].popitem()[1] == TOTAL * 8
    for stop in STOPS:
        folder = stopped(straight, stop, tmp_path / str(stop))
        assert_equal(straight, fit(make(name, key), folder, EMACallback(half_life=50), prefetch=2, enabled=enabled))
    other = fit(make(name, key), stopped(straight, 5, tmp_path / "raw"), prefetch=2, enabled=enabled)
    assert unequal(straight.last, other.last), "without the callback it goes on from the average: another training"


@pytest.mark.parametrize(("name", "key"), [("ae", "image"), ("wgan_gp", "vector")], ids=["automatic", "manual"])
def test_a_signal_stops_anywhere(name: str, key: str, tmp_path: Path) -> None:
    """Through the handler itself, while a thread has fetched batches already."""
    straight = fit(make(name, key), tmp_path / "straight")
    for stop in (1, 3, 4, 5, 8):
        folder = tmp_path / str(stop)
        with pytest.raises(StopRequested) as told:
            fit(make(name, key), folder, Signal(stop), prefetch=2)
        assert (told.value.batches, told.value.number) == (stop, signal.SIGTERM)
        assert_equal(straight, fit(make(name, key), folder))


def test_a_signal_waits_for_the_step_that_is_being_accumulated(tmp_path: Path) -> None:
    """Two batches a step: asked to stop after five, it stops after six."""

    def pair() -> zoo.Model:
        torch.manual_seed(0)
        return zoo.create_model("gan", data=SPECS["image"], accumulate=2)

    straight = fit(pair(), tmp_path / "straight")
    with pytest.raises(StopRequested) as told:
        fit(pair(), tmp_path / "stopped", Signal(5))
    assert told.value.batches == 6
    assert_equal(straight, fit(pair(), tmp_path / "stopped"))


@pytest.mark.parametrize(("name", "strategy"), [("ae", "ddp_fork"), ("gan", "ddp_fork_find_unused_parameters_true")])
def test_two_processes_resume_too(name: str, strategy: str, tmp_path: Path) -> None:
    run, two = RunFolder(tmp_path / "straight"), {"strategy": strategy, "devices": 2}
    straight = fit(make(name, "vector"), run.folder, Copies(run, (3, 5)), every=1, **two)
    for stop in (3, 5):
        resumed = fit(make(name, "vector"), stopped(straight, stop, tmp_path / str(stop)), prefetch=2, **two)
        assert_equal(straight, resumed)
    if name == "ae":
        both = fit(make(name, "vector"), tmp_path / "average", EMACallback(), **two)
        assert set(read_checkpoint(both.last)["ema"]["seen"].values()) == {TOTAL * 8 * 2}, "samples of both processes"
    states = read_checkpoint(straight.last)["callbacks"]["RNGState"]["processes"]
    assert len(states) == 2
    assert not torch.equal(states[0]["torch"], states[1]["torch"]), "each process draws noise of its own"
