"""Times a training while it runs, in turn with something else; `zoo bench` reads it."""

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import pytorch_lightning as L
import torch

from zoo.data.loader import TensorLoader


class TimingDone(Exception):
    """Everything was timed, and the training may end."""


class Elapsed(NamedTuple):
    """Seconds: by the clock, and of processors that this process has had, whatever else the machine was doing."""

    wall: float
    cpu: float

    def __sub__(self, other: "Elapsed") -> "Elapsed":
        return Elapsed(self.wall - other.wall, self.cpu - other.cpu)


class TimedLoader:
    """A loader that adds up how long it lets the training wait.

    Args:
        opened: gives the loader whose batches to pass on, when a trainer asks for the first.
    """

    def __init__(self, opened: Callable[[], TensorLoader]) -> None:
        self.opened, self.seconds = opened, 0.0

    @cached_property
    def loader(self) -> TensorLoader:
        """The loader."""
        return self.opened()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            begun = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - begun
            yield batch


class Timer(L.Callback):
    """Lets a training warm up, then times it in rounds of equally many batches; between two rounds the other has its.

    A round lasts from the beginning of one batch to the beginning of the one that follows the last, so everything
    between batches counts. Machines that do other things too disturb both in the same way.

    Args:
        other: runs so many batches of something else.
        rounds: of each.
        seconds: that a round should last; where it has more batches than lie between two logged ones, it has
            a multiple of them.
        warm: seconds of warm-up.
        waits: how long the training waited for data.
        before: called after the warm-up.
    """

    def __init__(
        self,
        other: Callable[[int], None] | None,
        rounds: int,
        seconds: float,
        warm: float,
        waits: TimedLoader,
        before: Callable[[], None],
    ) -> None:
        self.other, self.rounds, self.length, self.warm, self.waits = other, rounds, seconds, warm, waits
        self.before = before
        self.batches = 0  # of a round
        self.own: list[Elapsed] = []
        self.others: list[Elapsed] = []
        self.waited: list[float] = []  # seconds of each own round
        self.seen, self.due, self.begun = 0, 0, Elapsed(0.0, 0.0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time, if a round is over.

        Raises:
            Enough: that was the last one.
        """
        self.seen += 1
        if not self.batches:
            self.warm_up(trainer)
        elif self.seen == self.due:
            self.own.append(now(pl_module) - self.begun)
            self.waited.append(self.waits.seconds)
            self.turn(pl_module)

    def warm_up(self, trainer: L.Trainer) -> None:
        """Wait until everything has been done a few times, and decide how long a round is."""
        if self.seen == 3:  # the first two make what is made once
            self.begun = now(trainer.lightning_module)
        passed = (now(trainer.lightning_module) - self.begun).wall
        if self.seen < 6 or passed < self.warm:
            return
        each, every = passed / (self.seen - 3), trainer.log_every_n_steps  # type: ignore[attr-defined]
        n = math.ceil(self.length / each)
        self.batches = n if n < every else math.ceil(n / every) * every
        self.before()
        self.turn(trainer.lightning_module)

    def turn(self, module: L.LightningModule) -> None:
        """The other's round; then the next of the training begins."""
        if self.other is not None:
            if not self.others:
                self.other(3)
            begun = now(module)
            self.other(self.batches)
            self.others.append(now(module) - begun)
        if len(self.own) == self.rounds:
            raise TimingDone
        self.due, self.waits.seconds = self.seen + self.batches, 0.0
        self.begun = now(module)


def now(module: L.LightningModule) -> Elapsed:
    """The time, when the device has done all that it was asked to do."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return Elapsed(time.perf_counter(), time.process_time())
