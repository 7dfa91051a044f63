"""BLEU while a model of pairs is trained."""

from typing import Any

import pytorch_lightning as L

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Pair
from zoo.data.base import DataModule
from zoo.metrics.mt_metrics import bleu, exact_match
from zoo.models.base import Model
from zoo.viz.render import SEED


@register("callback", "bleu")
class BLEUCallback(L.Callback):
    """At each validation: the first sources, written to the likeliest token by token, against their targets.

    Logs `val/bleu` and `val/exact`, the share of outputs that are the target; with `_first200` and the like in the name
    where the split has more pairs than are looked at.

    Args:
        most: pairs, which keeps a validation short.
    """

    def __init__(self, *, most: PositiveInt = 200) -> None:
        self.most = most

    @staticmethod
    def applies(model: Model, data: DataModule) -> bool:
        """Parallel text."""
        return isinstance(data.spec.x, Pair)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and compare."""
        assert isinstance(pl_module, Model)
        if not trainer.is_global_zero:
            return
        model: Any = pl_module
        everything = trainer.datamodule.pairs("val")  # type: ignore[attr-defined]
        pairs = everything[: self.most]
        part = f"_first{self.most}" if len(everything) > self.most else ""
        done = model.generate([source for source, _ in pairs], temperature=0, seed=SEED)
        outputs, targets = [written.text for written in done], [target for _, target in pairs]
        small = model.tokenizer.lowercase
        scores = {"bleu": bleu(outputs, targets, small)[0], "exact": exact_match(outputs, targets, small)}
        model.log_dict({f"val/{name}{part}": score for name, score in scores.items()}, rank_zero_only=True)
