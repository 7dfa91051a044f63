"""Keep some held-out texts with the run."""

import pytorch_lightning as L
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.core.registry import register
from zoo.core.spaces import Tokens
from zoo.data.base import DataModule
from zoo.models.abilities import SupportsTokenLoss, SupportsTokenSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.reference_texts import TEXTS, write_reference
from zoo.training.context import TrainingContext


@register("callback", "reference_texts")
class ReferenceTexts(L.Callback):
    """Writes the beginnings of some validation texts into the run folder, for `zoo serve` to compare prompts with.

    Args:
        context: of the run.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.folder = context.run.folder

    @staticmethod
    def applies(model: Model, data: DataModule) -> bool:
        """Texts, and a model that predicts one token after another."""
        return isinstance(data.spec.x, Tokens) and all(
            supports(model, each) for each in (SupportsTokenLoss, SupportsTokenSampling)
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write."""
        if not trainer.is_global_zero:
            return
        x, y = list[Tensor](), list[Tensor]()
        for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
            x, y = [*x, *batch.x.cpu()], [*y, *batch.y.cpu()]
            if len(x) >= TEXTS:
                break
        write_reference(self.folder, pad_sequence(x, True), pad_sequence(y, True, padding_value=-1))
