"""Stop after a number of batches, with a final validation."""

from typing import Any

import pytorch_lightning as L

from zoo.models.base import Model


class StopAfterBatches(L.Callback):
    """Stops after `max_steps` batches, independently of the number of optimizers.

    Args:
        max_steps: batches.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Request the stop while Lightning can still validate."""
        assert isinstance(pl_module, Model)
        if pl_module.step + 1 >= self.max_steps:
            trainer.should_stop = True
