"""A moving average of the weights, for every family."""

import logging
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Fraction, Positive
from zoo.models.base import Model
from zoo.nn.optim.ema import EMA

log = logging.getLogger(__name__)


@register("callback", "ema")
class EMACallback(L.Callback):
    """Averages the weights during training: validation, samples and checkpoints use the average.

    Gradient descent updates the raw weights. The model contains the average from a validation or the end of an epoch to
    the next batch, and after the training. A checkpoint's `state_dict` is the average; its entry `ema` holds the raw
    weights, so that a resumed training is exact.

    Place it before callbacks that read the model at the start of a batch.

    Args:
        half_life: of the average, in samples (Karras et al. 2019, arXiv 1912.04958).
        ramp_up: the half-life is at most this share of the samples seen; 0 switches that off.
    """

    with_sharded_weights = "refused"  # it averages whole weights

    def __init__(self, *, half_life: Positive = 10_000, ramp_up: Fraction = 0.05) -> None:
        self.half_life, self.ramp_up = half_life, ramp_up
        self.averages: dict[str, EMA] = {}  # by the name of the module that each follows
        self.raw: dict[str, Tensor] = {}  # weights of the training while the model holds the average

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the modules."""
        assert isinstance(pl_module, Model)
        if stage != "fit":
            return
        parts = pl_module.modules_to_average()
        self.averages = {name: EMA(part, self.half_life, self.ramp_up) for name, part in parts.items()}
        self.raw = {}
        covered = {id(p) for part in parts.values() for p in part.parameters()}
        left = [name for name, p in pl_module.named_parameters() if p.requires_grad and id(p) not in covered]
        if left or not parts:
            log.warning("callbacks=ema does not average %s.", ", ".join(left[:3]) or "anything: there are no weights")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the copies to the model's device."""
        for average in self.averages.values():
            average.to(pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Swap in the raw weights."""
        self.restore_raw(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average."""
        for name, average in self.averages.items():
            average.update(pl_module.get_submodule(name), len(batch) * trainer.world_size)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Swap in the average, for validation, samples and checkpoints."""
        self.hold_average(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Swap in the average, for models that fit a density at the end of an epoch."""
        self.hold_average(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the model."""
        self.hold_average(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the average as the weights, and the raw weights beside it."""
        weights = checkpoint["state_dict"]
        averaged = dict(self._averaged())
        raw = {key: self.raw.get(key, weights[key]) for key in averaged}
        weights.update(averaged)
        seen = {name: int(average.seen) for name, average in self.averages.items()}
        checkpoint["ema"] = {"raw": raw, "seen": seen}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both; without a saved average, start from the weights."""
        saved = checkpoint.get("ema", {"raw": {}, "seen": {}})
        for name, average in self.averages.items():
            average.average.load_state_dict(pl_module.get_submodule(name).state_dict())
            average.seen.fill_(saved["seen"].get(name, 0))
            average.known = None
        pl_module.load_state_dict(saved["raw"], strict=False)

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        """Averaged weights and buffers by their names in the model."""
        for name, average in self.averages.items():
            for key, value in average.average.state_dict().items():
                yield f"{name}.{key}", value

    @torch.no_grad()
    def hold_average(self, model: L.LightningModule) -> None:
        """Set the raw weights aside and give the model the average."""
        if not self.raw:
            live, averaged = model.state_dict(), dict(self._averaged())
            self.raw = {key: live[key].clone() for key in averaged}  # first all: two names may share their memory
            for key, value in averaged.items():
                live[key].copy_(value)

    @torch.no_grad()
    def restore_raw(self, model: L.LightningModule) -> None:
        """Give the model the raw weights again."""
        if self.raw:
            live = model.state_dict()
            for key, value in self.raw.items():
                live[key].copy_(value)
            self.raw = {}
