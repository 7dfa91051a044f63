"""Base of causal networks whose state has a fixed size: embedding, head, and decoding token by token."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = list[Tensor]


class RecurrentDecoder(nn.Module):
    """Tokens (B, T) -> logits of the next token (B, T, n_out), by a state of a fixed size.

    Subclasses have an `embedding`, a `head` or None where that is the embedding, `n_out`, and `layer_states`.
    """

    context = math.inf  # any number of tokens fits into the state
    row_dim: ClassVar[int]  # of the tensors of a state, along which the rows of a batch lie
    embedding: nn.Embedding
    head: nn.Linear | None
    n_out: int

    def layer_states(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> list[Tensor]:
        """States that the layers read, embeddings first, and that the head reads: n_layers + 1 tensors (B, T, D).

        Args:
            tokens: (B, T).
            state: state before the tokens, replaced by that after them. None or an empty list is the zero state.
            lengths: number of tokens of each row without padding at its end (B,), on the CPU.
        """
        raise NotImplementedError

    def forward(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, n_out); the arguments are those of `layer_states`."""
        return self.project(self.hidden_states(tokens, state, lengths))

    def project(self, x: Tensor) -> Tensor:
        """Logits of hidden states: (B, T, D) -> (B, T, n_out)."""
        return F.linear(x, self.embedding.weight[: self.n_out]) if self.head is None else self.head(x)

    def hidden_states(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> Tensor:
        """Outputs of the last layer, which the head reads, (B, T, D); the arguments are those of `layer_states`."""
        return self.layer_states(tokens, state, lengths)[-1]

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
        state[:] = [part.index_select(self.row_dim, rows) for part in state]

    def merge(self, state: State, other: State) -> State:
        """State of the rows of both."""
        return [torch.cat(pair, dim=self.row_dim) for pair in zip(state, other, strict=True)]
