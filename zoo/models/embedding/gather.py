"""Rows of a batch from all processes, for losses that compare the rows with each other."""

from typing import Any

from torch import Tensor

from zoo.models.base import Model


def gather_rows(model: Model, x: Tensor) -> Tensor:
    """Rows (B, ...) of all processes in training, so that a batch has the same negatives for any number of them."""
    trainer = model.attached_trainer
    if trainer is None or trainer.world_size == 1 or not model.training:  # held-out batches differ in size
        return x
    rows: Any = model.all_gather(x, sync_grads=x.requires_grad)
    flat: Tensor = rows.flatten(0, 1)
    return flat
