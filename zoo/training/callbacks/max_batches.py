"""Ends a training with a validation, so that the last batches are judged, saved and drawn like all others."""

from typing import Any

import pytorch_lightning as L

from zoo.models.base import Model


class StopAfterBatches(L.Callback):
    """Stops after so many batches, however many optimizers the model steps.

    Args:
        max_steps: batches.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Ask for the stop while Lightning can still validate."""
        assert isinstance(pl_module, Model)
        if pl_module.step + 1 >= self.max_steps:
            trainer.should_stop = True
