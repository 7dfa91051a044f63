"""Transformers that read one text: decoder-only, which predicts the next token, and encoder-only, which sees all."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.position_encoding import Positions
from zoo.nn.blocks.transformer_block import TransformerStack, make_norm
from zoo.nn.blocks.transformer_config import TransformerConfig


class Transformer(TransformerStack):
    """Tokens (B, T) -> logits of the next token (B, T, n_out).

    Args:
        n_in: identifiers that may be read.
        n_out: identifiers that may be predicted, the first of the n_in.
        context: positions.
        shape: of the blocks.
        n_layers: blocks.
        positions: see `Stack`.
        window: see `Stack`.
        theta: see `Stack`.
        tie_weights: the head is the embedding (Press & Wolf 2017, 1608.05859).
        softcap: c tanh(logit / c) instead of a logit; 0 is off.
        end: the token that begins a text: none sees what stands before the last one; None lets all see all before.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        shape: TransformerConfig,
        n_layers: int,
        *,
        positions: Positions = "rotary",
        window: int = 0,
        theta: float = 10000.0,
        tie_weights: bool = True,
        softcap: float = 0.0,
        end: int | None = None,
    ) -> None:
        super().__init__(shape, n_layers, context, positions=positions, window=window, theta=theta)
        self.n_out, self.softcap, self.end = n_out, softcap, end
        self.embedding = nn.Embedding(n_in, shape.d_model)
        self.head = None if tie_weights else nn.Linear(shape.d_model, n_out, bias=False)
        self.reset()

    def reset(self) -> None:
        """Draw all weights anew; a head of its own begins at zero."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        super().reset()
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) -> (B, T, n_out); with a cache the tokens follow those that it already holds.

        Raises:
            ZooError: more tokens than the context has positions.
        """
        x = self.run(self.embedding(tokens), first=self._beginnings(tokens, cache), cache=cache)
        logits = F.linear(x, self.embedding.weight[: self.n_out] if self.head is None else self.head.weight)
        return self.softcap * (logits / self.softcap).tanh() if self.softcap else logits

    def _beginnings(self, tokens: Tensor, cache: KVCache | None) -> Tensor | None:
        """The column with which each token's text begins (B, T); None where all begin with the first."""
        before = None if cache is None else cache.segment_starts(tokens)
        if self.end is None:
            return before
        start = cache.used if cache else 0
        column = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        first = torch.where(tokens == self.end, column, 0).cummax(dim=1).values
        if before is not None:
            first = torch.maximum(first, before)
        if cache is not None:
            cache.first = first[:, -1]
        return first

    # -- the protocol of `zoo.nn.samplers.autoregressive` -------------------------------------------------------------------

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, KVCache]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits (B, n_out)."""
        cache = self.new_cache(len(tokens))
        cache.first = padding
        return self(tokens, cache)[:, -1], cache

    def step(self, tokens: Tensor, state: KVCache) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self(tokens[:, None], state)[:, -1]

    def reorder(self, state: KVCache, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""
        state.reorder(rows)


class Encoder(TransformerStack):
    """Tokens (B, T) -> features (B, T, d); every position sees all others that are real.

    Args:
        n_in: identifiers that may be read.
        context: positions.
        shape: of the blocks.
        n_layers: blocks.
        positions: see `Stack`.
        theta: see `Stack`.
    """

    def __init__(
        self,
        n_in: int,
        context: int,
        shape: TransformerConfig,
        n_layers: int,
        *,
        positions: Positions = "learned",
        theta: float = 10000.0,
    ) -> None:
        super().__init__(shape, n_layers, context, positions=positions, causal=False, theta=theta)
        self.embedding = nn.Embedding(n_in, shape.d_model)
        self.reset()

    def reset(self) -> None:
        """Draw all weights anew."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        super().reset()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, d); a negative token is none, and nothing sees it."""
        real = tokens >= 0
        return self.run(self.embedding(tokens.clamp(min=0)), real=real)


class MaskedHead(nn.Module):
    """Features (B, T, d) -> logits (B, T, n_out): a layer and a norm before the embedding's transpose.

    Devlin et al. 2018 (BERT, 1810.04805), in its published code.

    Args:
        shape: of the features.
        n_out: identifiers that may be predicted, the first of the embedding's.
    """

    def __init__(self, shape: TransformerConfig, n_out: int) -> None:
        super().__init__()
        self.up = nn.Linear(shape.d_model, shape.d_model)
        self.norm = make_norm(shape.norm, shape.d_model, shape.norm_eps)
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.normal_(self.up.weight, std=shape.d_model**-0.5)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """With the embedding's weights (n_in, d)."""
        return F.linear(self.norm(F.gelu(self.up(x))), embedding[: len(self.bias)], self.bias)
