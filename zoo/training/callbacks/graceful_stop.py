"""Ctrl-C and SIGTERM: finish the batch, save, stop."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import pytorch_lightning as L

from zoo.core.counted import counted
from zoo.training.callbacks.checkpointer import Checkpointer, batches_done, no_pending_gradients
from zoo.training.callbacks.nan_guard import any_rank

SIGNALS = (signal.SIGINT, signal.SIGTERM)
T = TypeVar("T")


class DrawingStopped(BaseException):
    """A signal arrived while samples were drawn; libraries that catch `Exception` do not catch it."""


class StopRequested(Exception):
    """A signal stopped the training, after a checkpoint.

    Args:
        number: signal number.
        batches: number of processed batches.
    """

    def __init__(self, number: int, batches: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after {counted(batches, 'batch')}")
        self.number, self.batches = number, batches


class GracefulStop(L.Callback):
    """Saves and stops before the next batch at the first signal; a second one acts at once.

    Args:
        checkpointer: writes the checkpoint.
    """

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer, self.received = checkpointer, 0
        self.drawing = False
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.before = {number: signal.signal(number, self.receive) for number in SIGNALS}

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Store the signal, and restore the default handlers for the next one."""
        self.received = number
        for known in self.before:
            signal.signal(known, signal.default_int_handler if known == signal.SIGINT else signal.SIG_DFL)
        name = signal.Signals(number).name
        print(f"zoo: {name}: saving after this batch. A second signal ends at once, without saving.", file=sys.stderr)
        if self.drawing:
            raise DrawingStopped

    def draw(self, function: Callable[[], T]) -> T | None:
        """Call a function that a signal may interrupt, because a checkpoint does not depend on it.

        Returns:
            Its result; None after a signal.
        """
        try:
            self.drawing = True
            found = function() if not self.received else None
            self.drawing = False
            return found
        except DrawingStopped:
            return None
        finally:
            self.drawing = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if a signal was received by any process."""
        if any_rank(trainer, bool(self.received)) and no_pending_gradients(trainer):
            done = batches_done(trainer)
            if not done or done != self.checkpointer.saved:  # before the first batch, a model may have been fitted
                self.checkpointer.save_between(trainer)
            raise StopRequested(self.received or signal.SIGTERM, done)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the previous handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
