"""Language models: the next token of a text, predicted by any causal network."""

from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.mlp import expert_balance
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
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
        expert_balance: weight of the term that keeps the experts of a mixture equally busy in training.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.

    Raises:
        ZooError: images, or a backbone that does not support `document_mask`.
    """

    shardable = True
    paper = "Radford et al. 2019 (GPT-2); Vaswani et al. 2017 (arXiv:1706.03762); Hochreiter & Schmidhuber 1997 (LSTM)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer",
        document_mask: bool = False,
        expert_balance: NonNegative = 0.01,
        optimizer: Optimizer = "muon",
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
    ) -> None:
        if isinstance(spec.x, Image):
            raise ZooError(f"{spec}: a language model learns text, not images. Take model=image_gpt.")
        super().__init__(spec)
        size = spec.tokens.vocab_size
        self.net = self.build_backbone(size, size, self.context)
        if document_mask:
            if not hasattr(self.net, "end"):
                raise ZooError(
                    "model.document_mask=true: the backbone cannot mask earlier documents. "
                    "Leave it out, or take model/backbone=transformer."
                )
            self.net.end = self.begin

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per scored token; for mixtures of experts also the balance of their use."""
        terms = super().loss(batch)
        balance = expert_balance(self.net) if self.training else None
        if balance is None:
            return terms
        nats = terms["loss"]
        return {"loss": nats + self.hparams["expert_balance"] * balance, "nats": nats, "balance": balance}

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        x, y = batch
        return self.net(x), y

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, T, T) of each block."""
        return attention_maps(self.net, lambda: self.net(batch.x))

    def export_module(self) -> ExportableSampler:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        tokens = InputSpec("tokens", "token", (self.context,), high=self.spec.tokens.vocab_size)
        return ExportableSampler(self.net, [tokens], self.net, start_tokens=[self.end])
