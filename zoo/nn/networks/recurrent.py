"""Recurrent networks over tokens, whose state has a fixed size."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.core.registry import register
from zoo.core.signature import DropoutRate, PositiveInt
from zoo.nn.blocks import lstm

State = list[Tensor]  # per layer (S, B, D): the hidden state, and in an LSTM the memory cell after it


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


class Recurrent(nn.Module):
    """Tokens (B, T) -> logits of the next token (B, T, n_out), through residual layers of recurrent cells.

    With `residual`, a layer computes x + cell(norm(x)), where norm divides by the RMS, and the head reads norm(x).
    Otherwise layers are stacked plainly. The state has a fixed size, so any number of tokens fits into it.

    Embeddings are initialised normal with standard deviation 1 / sqrt(d_model), or 0.02 with `residual`, as norms
    follow them. Input matrices are normal with 1 / sqrt(fan-in), and recurrent ones orthogonal. The forget gates of an
    LSTM have bias 1 (Jozefowicz et al. 2015).

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
    context = math.inf

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

    def forward(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, n_out); the arguments are those of `hidden_states`."""
        return self.project(self.hidden_states(tokens, state, lengths))

    def project(self, x: Tensor) -> Tensor:
        """Logits of hidden states: (B, T, D) -> (B, T, n_out)."""
        return F.linear(x, self.embedding.weight[: self.n_out]) if self.head is None else self.head(x)

    def hidden_states(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> Tensor:
        """Outputs of the last layer, which the head reads: (B, T) -> (B, T, D).

        Args:
            tokens: input.
            state: state before the tokens, replaced by that after them. None or an empty list is the zero state.
            lengths: number of tokens of each row without padding at its end (B,), on the CPU.
        """
        return self.layer_states(tokens, state, lengths)[-1]

    def layer_states(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> list[Tensor]:
        """States that the layers read, embeddings first, and that the head reads: n_layers + 1 tensors (B, T, D).

        The arguments are those of `hidden_states`.
        """
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

    # -- IncrementalDecoder

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, State]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits, and a state."""
        state: State = []
        if padding is None:
            return self(tokens, state)[:, -1], state
        # Padding moves to the end of the rows, where a state need not read it.
        lengths = tokens.shape[1] - padding
        place = torch.arange(tokens.shape[1], device=tokens.device)
        tokens = tokens.gather(1, (place + padding[:, None]) % tokens.shape[1])
        logits = self(tokens, state, lengths.cpu())
        return logits[torch.arange(len(tokens), device=tokens.device), lengths - 1], state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self(tokens[:, None], state)[:, -1]

    def reorder(self, state: State, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was; the number of rows may change."""
        state[:] = [layer.index_select(1, rows) for layer in state]

    def merge(self, state: State, other: State) -> State:
        """State of the rows of both."""
        return [torch.cat(pair, dim=1) for pair in zip(state, other, strict=True)]


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
