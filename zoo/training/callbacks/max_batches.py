"""Stop after a number of batches, with a final validation."""

from typing import Any

import pytorch_lightning as L

from zoo.models.base import Model
from zoo.training.callbacks.checkpointer import batches_done
from zoo.training.fast_loop import log_by_batches, set_logged_step


class StopAfterBatches(L.Callback):
    """Stops after `max_steps` batches, independently of the number of optimizers and of accumulated batches.

    It gives the model the length of the training, and makes the loggers count batches.

    Args:
        max_steps: batches.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Tell the model, before it builds its optimizers."""
        pl_module.batch_limit = self.max_steps  # type: ignore[assignment]
        log_by_batches(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the limits of another trainer decide."""
        pl_module.batch_limit = None  # type: ignore[assignment]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further in a resumed run that is finished."""
        if batches_done(trainer) >= self.max_steps:
            trainer.should_stop = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Count batches in the loggers."""
        set_logged_step(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Request the stop while Lightning can still validate."""
        assert isinstance(pl_module, Model)
        if pl_module.step + 1 >= self.max_steps:
            trainer.should_stop = True
