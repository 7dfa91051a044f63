"""Recurrent language models: what read text before transformers did."""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from zoo.models.base import Batch, Schedule
from zoo.models.text import TextModel
from zoo.nn.optim import Muon
from zoo.nn.recurrent import Cell, Recurrent
from zoo.registry import register
from zoo.spec import Betas, Count, DataSpec, Fraction, NonNegative, Positive, PositiveInt


@register("model", "rnn")
class RNN(TextModel):
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
        tie_weights: one matrix for reading and for predicting tokens. With `residual`, what was read reaches the head too:
            after a token that training never showed, such as the one that begins a text in a corpus of a single one,
            a tied head predicts what looks like it.
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

    family = "autoregressive"
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
        optimizer: Literal["muon", "adamw"] = "muon",
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
            spec.vocab_size,
            cell=cell,
            d_model=d_model,
            n_layers=n_layers,
            residual=residual,
            dropout=dropout,
            tie_weights=tie_weights,
        )

    def nats(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cost of every target token (B, T) in nats, zero where it is not scored; and the targets."""
        x, y = batch
        logits = self.net(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits.transpose(1, 2), y, reduction="none"), y

    def configure_optimizers(self) -> Any:
        """Muon for the matrices of the cells and AdamW for the rest, or AdamW for all."""
        h = self.hparams
        matrices = [p for p in self.net.cells.parameters() if p.ndim == 2]
        held = {id(p) for p in matrices}
        others = [p for p in self.net.parameters() if id(p) not in held]
        optimizer: torch.optim.Optimizer
        if h["optimizer"] == "muon":
            optimizer = Muon(
                matrices,
                others,
                lr=h["muon_lr"],
                adamw_lr=h["lr"],
                weight_decay=h["weight_decay"],
                betas=tuple(h["betas"]),
            )
        else:
            groups = [
                {"params": [p for p in self.net.parameters() if p.ndim == 2], "weight_decay": h["weight_decay"]},
                {"params": [p for p in self.net.parameters() if p.ndim != 2], "weight_decay": 0.0},
            ]
            optimizer = torch.optim.AdamW(groups, lr=h["lr"], betas=tuple(h["betas"]))
        return self.scheduled(optimizer, h["schedule"], h["warmup"])
