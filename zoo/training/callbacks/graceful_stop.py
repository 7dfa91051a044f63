"""Ctrl-C and SIGTERM: finish the batch, save, stop."""

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as L

from zoo.training.callbacks.checkpointer import Checkpointer, batches_done, no_pending_gradients
from zoo.training.callbacks.nan_guard import any_rank

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """Training was asked to stop, and has saved everything it needs to go on.

    Args:
        number: of the signal.
        batches: done so far.
    """

    def __init__(self, number: int, batches: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after {batches} batches")
        self.number, self.batches = number, batches


class GracefulStop(L.Callback):
    """Turns the first signal into a checkpoint before the next batch; a second one acts at once.

    Args:
        keeper: saves.
    """

    def __init__(self, keeper: Checkpointer) -> None:
        self.keeper, self.received = keeper, 0
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen, in place of Python and of Lightning."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.before = {number: signal.signal(number, self.receive) for number in SIGNALS}

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal, and let the next one through."""
        self.received = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if asked; all processes together."""
        if any_rank(trainer, bool(self.received)) and no_pending_gradients(trainer):
            done = batches_done(trainer)
            if done != self.keeper.saved:
                self.keeper.save_between(trainer)
            raise StopRequested(self.received or signal.SIGTERM, done)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
