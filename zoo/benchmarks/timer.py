"""Callback that times a training while it runs, alternating with another computation."""

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import pytorch_lightning as L
import torch

from zoo.data.loader import TensorLoader


class TimingDone(Exception):
    """Raised to end the training after the last round."""


class Elapsed(NamedTuple):
    """Wall-clock seconds, and CPU seconds of this process."""

    wall: float
    cpu: float

    def __sub__(self, other: "Elapsed") -> "Elapsed":
        return Elapsed(self.wall - other.wall, self.cpu - other.cpu)


class TimedLoader:
    """Loader wrapper that accumulates the time the training waits for data.

    Args:
        opened: creates the loader when the first batch is requested.
    """

    def __init__(self, opened: Callable[[], TensorLoader]) -> None:
        self.opened, self.seconds = opened, 0.0

    @cached_property
    def loader(self) -> TensorLoader:
        """Wrapped loader."""
        return self.opened()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - start
            yield batch


class Timer(L.Callback):
    """Times rounds of equally many batches after a warm-up; after each round the other computation runs one.

    A round lasts from the start of a batch to the start of the one after the last, so everything between batches
    counts. Load from other processes affects both alike.

    Args:
        other: runs that many batches of the other computation.
        rounds: number of rounds.
        seconds: target length of a round. Rounds longer than the logging interval are rounded up to multiples of it.
        warm: seconds of warm-up.
        waits: the training's loader.
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
        self.batches = 0  # per round
        self.trainer_rounds: list[Elapsed] = []
        self.other_rounds: list[Elapsed] = []
        self.wait_seconds: list[float] = []  # seconds of waiting per round
        self.batches_seen, self.round_end, self.start = 0, 0, Elapsed(0.0, 0.0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record the time at the end of a round.

        Raises:
            TimingDone: after the last round.
        """
        self.batches_seen += 1
        if not self.batches:
            self.warm_up(trainer)
        elif self.batches_seen == self.round_end:
            self.trainer_rounds.append(now(pl_module) - self.start)
            self.wait_seconds.append(self.waits.seconds)
            self.next_round(pl_module)

    def warm_up(self, trainer: L.Trainer) -> None:
        """Wait for the warm-up, and choose the number of batches per round."""
        if self.batches_seen == 3:  # the first two include one-time initialisation
            self.start = now(trainer.lightning_module)
        passed = (now(trainer.lightning_module) - self.start).wall
        if self.batches_seen < 6 or passed < self.warm:
            return
        each, every = passed / (self.batches_seen - 3), trainer.log_every_n_steps  # type: ignore[attr-defined]
        n = math.ceil(self.length / each)
        self.batches = n if n < every else math.ceil(n / every) * every
        self.before()
        self.next_round(trainer.lightning_module)

    def next_round(self, module: L.LightningModule) -> None:
        """Run a round of the other computation, then start the next round of the training."""
        if self.other is not None:
            if not self.other_rounds:
                self.other(3)
            start = now(module)
            self.other(self.batches)
            self.other_rounds.append(now(module) - start)
        if len(self.trainer_rounds) == self.rounds:
            raise TimingDone
        self.round_end, self.waits.seconds = self.batches_seen + self.batches, 0.0
        self.start = now(module)


def now(module: L.LightningModule) -> Elapsed:
    """Current time after synchronising the device."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return Elapsed(time.perf_counter(), time.process_time())
