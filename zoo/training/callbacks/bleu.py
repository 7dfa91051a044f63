"""BLEU of models of parallel text during training."""

from typing import Any

import pytorch_lightning as L

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Pair
from zoo.data.base import DataModule
from zoo.metrics.mt_metrics import bleu, exact_match
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.viz.render import SEED


@register("callback", "bleu")
class BLEUCallback(L.Callback):
    """Translates the first validation sources greedily, and compares the outputs with the targets.

    Logs `val/bleu` and `val/exact`, the share of exact matches. If the split has more than `max_pairs` pairs, the names
    end in `_first200`.

    Args:
        max_pairs: number of pairs; fewer make a validation shorter.
    """

    with_sharded_weights = "off"  # the first process runs the model alone

    def __init__(self, *, max_pairs: PositiveInt = 200) -> None:
        self.max_pairs = max_pairs

    @staticmethod
    def applies(model: Model, data: DataModule) -> bool:
        """Models that write text, on parallel text."""
        return isinstance(data.spec.x, Pair) and supports(model, SupportsTextGeneration)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Generate and score."""
        assert isinstance(pl_module, Model)
        if not trainer.is_global_zero:
            return
        model: Any = pl_module
        everything = trainer.datamodule.pairs("val")  # type: ignore[attr-defined]
        pairs = everything[: self.max_pairs]
        part = f"_first{self.max_pairs}" if len(everything) > self.max_pairs else ""
        done = model.generate([source for source, _ in pairs], temperature=0, seed=SEED)
        outputs, targets = [written.text for written in done], [target for _, target in pairs]
        small = model.tokenizer.lowercase
        scores = {"bleu": bleu(outputs, targets, small)[0], "exact": exact_match(outputs, targets, small)}
        model.log_dict({f"val/{name}{part}": score for name, score in scores.items()}, rank_zero_only=True)
