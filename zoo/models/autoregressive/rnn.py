"""Recurrent language models: what read text before transformers did."""

from typing import Annotated, Any

from annotated_types import Interval
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Betas, Count, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import LanguageModelBase, configure_optimizer
from zoo.models.base import Schedule
from zoo.nn.networks.recurrent import Cell, Recurrent
from zoo.nn.optim.factory import OptimizerKind


@register("model", "rnn")
class RNN(LanguageModelBase):
    """Recurrent language model: a state, updated by every token, predicts the next one.

    `loss` is nats per scored token; validation adds bits per byte. In training as in scoring, windows are independent:
    the state is zero where one begins, so that a number compares with that of a transformer of the same context.
    Writing has no context to fill: the state goes on, and nothing is read twice.

    Args:
        spec: what the data looks like.
        cell: rnn is tanh units, lstm and gru remember over longer distances by their gates.
        d_model: width of embeddings and states.
        n_layers: cells above one another.
        residual: a layer adds to what it reads, which it gets divided by its RMS; without, layers are stacked plainly.
        dropout: of embeddings, between layers and before the head; one mask for all tokens of a row.
        tie_weights: one matrix for reading and for predicting tokens. With `residual`, what was read reaches the head
            too: after a token that training hardly showed, such as the beginning of a corpus of one text, a tied head
            predicts what looks like it.
        optimizer: muon orthogonalises the updates of the cells' matrices and gives the rest to AdamW.
        lr: of AdamW.
        muon_lr: of Muon's matrices.
        betas: of AdamW.
        weight_decay: decoupled, of all matrices.
        schedule: of both learning rates.
        warmup: batches of linear warm-up.
        temperature: of texts where none is asked for; 0 takes the likeliest token.
        top_p: of texts where none is asked for.
    """

    paper = "Elman 1990 (Cognitive Science 14); Hochreiter & Schmidhuber 1997; Cho et al. 2014 (arXiv:1406.1078)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        cell: Cell = "rnn",
        d_model: PositiveInt = 180,
        n_layers: PositiveInt = 3,
        residual: bool = True,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
        tie_weights: bool = False,
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
        super().__init__(spec)
        self.net = Recurrent(
            spec.tokens.vocab_size,
            cell=cell,
            d_model=d_model,
            n_layers=n_layers,
            residual=residual,
            dropout=dropout,
            tie_weights=tie_weights,
        )

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        x, y = batch
        return self.net(x), y

    def configure_optimizers(self) -> Any:
        """Muon for the matrices of the cells and AdamW for the rest, or AdamW for all."""
        return configure_optimizer(self, self.net.cells)
