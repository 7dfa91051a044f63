"""Ctrl-C and SIGTERM: finish the batch, save, stop."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as L

from zoo.callbacks.keeper import save
from zoo.models.base import GenerativeModel

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training was asked to stop, and has saved everything it needs to go on.

    Args:
        number: of the signal.
        batches: done so far.
    """

    def __init__(self, number: int, batches: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after {batches} batches")
        self.number, self.batches = number, batches


class Interruption(L.Callback):
    """Turns the first signal into a checkpoint at the end of the running batch; a second one acts at once.

    Args:
        path: of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.received = path, 0
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen, in place of Python and of Lightning."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.before = {number: signal.signal(number, self.receive) for number in SIGNALS}

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal, and let the next one through."""
        self.received = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Save and stop, if asked; all processes together."""
        assert isinstance(pl_module, GenerativeModel)
        asked = bool(self.received)
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            save(trainer, self.path)
            raise Interrupted(self.received or signal.SIGTERM, pl_module.step + 1)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
