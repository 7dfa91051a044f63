"""Recurrent networks over tokens, whose state has a fixed size."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.core.registry import register
from zoo.core.signature import DropoutRate, PositiveInt
from zoo.nn.blocks import lstm
from zoo.nn.blocks.recurrent_decoder import RecurrentDecoder, State


class LockedDropout(nn.Module):
    """Dropout with one mask for all tokens of a row (Gal & Ghahramani 2016, 1512.05287)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if not self.training or not self.p:
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.p)


class Recurrent(RecurrentDecoder):
    """Tokens (B, T) -> logits of the next token (B, T, n_out), through residual layers of recurrent cells.

    With `residual`, a layer computes x + cell(norm(x)), where norm divides by the RMS, and the head reads norm(x).
    Otherwise layers are stacked plainly. The state has a fixed size, so any number of tokens fits into it.

    Embeddings are initialised normal with standard deviation 1 / sqrt(d_model), or 0.02 with `residual`, as norms
    follow them. Input matrices are normal with 1 / sqrt(fan-in), and recurrent ones orthogonal. The forget gates of an
    LSTM have bias 1 (Jozefowicz et al. 2015). The state has for each layer the hidden state, and in an LSTM the memory
    cell after it, (S, B, D).

    Args:
        n_in: tokens that can be read.
        n_out: tokens that can be predicted, the first of the n_in.
        context: tokens of a training window, which the size of the state does not depend on.
        d_model: width of embeddings and states.
        n_layers: layers of cells.
        residual: add to each layer's input instead of replacing it.
        dropout: of embeddings, between layers and before the head; one mask for all tokens of a row.
        tie_weights: the head is the embedding (Press & Wolf 2017, 1608.05859); otherwise it is initialised to zero.
            With `residual`, the last token's embedding reaches a tied head, which then predicts similar tokens.
    """

    cell: ClassVar[Callable[..., nn.RNNBase]]
    row_dim = 1

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 180,
        n_layers: PositiveInt = 3,
        residual: bool = True,
        dropout: DropoutRate = 0.0,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        self.n_out, self.d_model, self.residual = n_out, d_model, residual
        self.parts = 2 if self.cell is lstm.LSTM else 1
        self.embedding = nn.Embedding(n_in, d_model)
        self.blocks = nn.ModuleList(self.cell(d_model, d_model, batch_first=True) for _ in range(n_layers))
        self.drop = LockedDropout(dropout)
        self.head = None if tie_weights else nn.Linear(d_model, n_out, bias=False)
        self.reset()

    def reset(self) -> None:
        """Initialise all weights."""
        nn.init.normal_(self.embedding.weight, std=0.02 if self.residual else self.d_model**-0.5)
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
        for cell in self.blocks:
            for name, p in cell.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(p)
                elif name.startswith("weight_ih"):
                    nn.init.normal_(p, std=p.shape[1] ** -0.5)
                else:
                    for gate in p.data.split(self.d_model):
                        nn.init.orthogonal_(gate)
            if isinstance(cell, nn.LSTM):
                nn.init.ones_(cell.get_parameter("bias_ih_l0").data[self.d_model : 2 * self.d_model])

    def layer_states(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> list[Tensor]:
        """States that the layers read, embeddings first, and that the head reads: n_layers + 1 tensors (B, T, D)."""
        return self.run(self.embedding(tokens), state, lengths)

    def run(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> list[Tensor]:
        """`layer_states` of embeddings (B, T, D)."""
        x = self.drop(x)
        states, after = [self.norm(x)], State()
        for layer, cell in enumerate(self.blocks):
            h, new = self.read(cell, states[-1], state[layer] if state else None, lengths)
            x = self.drop(x + h if self.residual else h)
            states.append(self.norm(x))
            after.append(new)
        if state is not None:
            state[:] = after
        return states

    def norm(self, x: Tensor) -> Tensor:
        """Divided by its RMS, where layers are residual."""
        return F.rms_norm(x, x.shape[-1:]) if self.residual else x

    def read(self, cell: nn.Module, x: Tensor, state: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """One layer: inputs (B, T, D) and state (S, B, D) -> outputs (B, T, D) and the state after them."""
        before = None if state is None else (tuple(state.split(1)) if self.parts == 2 else state)
        if lengths is None:
            out, last = cell(x, before)
        else:
            packed, last = cell(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), before)
            out, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return out, torch.cat(last) if self.parts == 2 else last


@register("backbone", "rnn")
class RNN(Recurrent):
    """Recurrent network of tanh units (Elman 1990)."""

    cell = nn.RNN


@register("backbone", "lstm")
class LSTM(Recurrent):
    """Long short-term memory: gated cells (Hochreiter & Schmidhuber 1997)."""

    cell = lstm.LSTM


@register("backbone", "gru")
class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014, 1406.1078)."""

    cell = nn.GRU
