"""Language models: the next token of a text, predicted by any causal network."""

from typing import Any

from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Betas, Count, Fraction, NonNegative, Positive
from zoo.core.spec import DataSpec
from zoo.models.autoregressive.base import LanguageModelBase, configure_optimizer
from zoo.models.base import Batch, Schedule
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.factory import OptimizerKind
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec


@register("model", "language_model")
class LanguageModel(LanguageModelBase):
    """Autoregressive language model over a causal network, the backbone.

    `loss` is the mean negative log-likelihood of the scored tokens, in nats. Validation adds bits per byte of text,
    which compares between tokenizers. Windows are independent: a recurrent state is zero at the start of each.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        backbone: the causal network: transformer, rnn, lstm, gru, or a registered one.
        document_mask: attend to nothing before the current document, where several are packed into one window.
        optimizer: muon orthogonalises the updates of matrices and gives the rest to AdamW.
        lr: of AdamW.
        muon_lr: of Muon's matrices.
        betas: of AdamW.
        weight_decay: decoupled, of all matrices.
        schedule: of both learning rates.
        warmup: batches of linear warm-up.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.

    Raises:
        ZooError: images, or a backbone that does not support `document_mask`.
    """

    family = "autoregressive"
    paper = "Radford et al. 2019 (GPT-2); Vaswani et al. 2017 (arXiv:1706.03762); Hochreiter & Schmidhuber 1997 (LSTM)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer",
        document_mask: bool = False,
        optimizer: OptimizerKind = "muon",
        lr: Positive = 5e-3,
        muon_lr: Positive = 0.02,
        betas: Betas = (0.9, 0.95),
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "linear",
        warmup: Count = 10,
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
    ) -> None:
        if spec.kind == "image":
            raise ZooError(f"{spec}: a language model learns text, not images. Take model=image_gpt.")
        super().__init__(spec)
        end = self.begin if document_mask else None
        self.net = self.part("backbone", "backbone", spec.vocab_size, spec.vocab_size, self.context, end)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        x, y = batch
        return self.net(x), y

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, T, T) of each block; empty for a backbone without attention."""
        return attention_maps(self.net, lambda: self.net(batch[0]))

    def core(self) -> ExportableSampler:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        tokens = InputSpec("tokens", "token", (self.context,), high=self.spec.vocab_size)
        return ExportableSampler(self.net, [tokens], self.net, begins=[self.end])

    def configure_optimizers(self) -> Any:
        """Muon for the matrices of the blocks and AdamW for the rest, or AdamW for all."""
        return configure_optimizer(self, self.net.blocks)
