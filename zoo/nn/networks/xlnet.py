"""Transformer of XLNet: two streams of features, and attention by relative positions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, NonNegative, PositiveInt
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.kv_cache import KVCache, KVCacheDecoder
from zoo.nn.blocks.mlp import make_mlp
from zoo.nn.blocks.norms import make_norm
from zoo.nn.blocks.transformer_block import output_like, reset_blocks
from zoo.nn.blocks.transformer_config import MLPKind, TransformerConfig


class RelativeAttention(nn.Module):
    """Attention whose scores are (q + u) k + (q + v) r, with r of the distance (Dai et al. 2019, 1901.02860, 3.3).

    Args:
        config: configuration of the blocks.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, width = config, config.n_heads * config.head
        self.query, self.key, self.value, self.position = (
            nn.Linear(config.d_model, width, bias=False) for _ in range(4)
        )
        self.out = nn.Linear(width, config.d_model, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(width))  # u
        self.position_bias = nn.Parameter(torch.zeros(width))  # v
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        content: Tensor,
        waves: Tensor,
        distance: Tensor,
        allowed: Tensor,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attend from x (B, N, d) to content (B, S, d) and the cache, K tokens together: (B, N, d).

        Args:
            x: queries are projected from it.
            content: keys and values are projected from it.
            waves: sinusoids of all distances (P, d).
            distance: row of `waves` for each pair (B or 1, N, K).
            allowed: True where attention is allowed (B or 1, N, K).
            cache: keys and values of earlier tokens, extended by those of content.
            layer: index in the cache.
        """
        q, k, v, r = self.query(x), self.key(content), self.value(content), self.position(waves)
        q_content, q_position = q + self.content_bias.to(q.dtype), q + self.position_bias.to(q.dtype)
        q_content, q_position, k, v = map(self._heads, (q_content, q_position, k, v))  # (B, H, N, D)
        if cache is not None:
            k, v = cache.update(layer, k, v)
        shape = (x.shape[0], self.config.n_heads, *distance.shape[1:])
        by_place = (q_position @ self._heads(r).mT).gather(-1, distance[:, None].expand(shape))  # (B, H, N, K)
        scores = (q_content @ k.mT + by_place) * self.config.head**-0.5
        weights = self.drop(scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1))
        return self.out((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(..., T, H D) -> (..., H, T, D)."""
        return x.unflatten(-1, (self.config.n_heads, -1)).transpose(-3, -2)


class XLNetBlock(nn.Module):
    """Residual attention and MLP, with a norm after each sum.

    Args:
        config: configuration of the blocks.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = RelativeAttention(config)
        self.norm1, self.norm2 = (make_norm(config.norm, config.d_model, config.norm_eps) for _ in range(2))
        self.mlp, self.drop = make_mlp(config), nn.Dropout(config.dropout)

    def forward(self, x: Tensor, *given: object) -> Tensor:
        """(B, N, d) -> (B, N, d); further arguments as in `RelativeAttention`."""
        x = self.norm1(x + self.drop(self.attention(x, *given)))
        return self.norm2(x + self.drop(self.mlp(x)))


@register("backbone", "xlnet")
class TwoStreamTransformer(KVCacheDecoder, FixedConstants):
    """Transformer that predicts tokens in any order, by two streams (Yang et al. 2019, 1906.08237, section 2.3).

    The content stream at a place reads its token and those before it in the order. The query stream reads the place,
    and the tokens before it: it predicts the token. Called on tokens alone, the order is from left to right.

    Args:
        n_in: tokens that can be read.
        n_out: tokens that can be predicted, the first of the n_in.
        context: tokens of a text after its first one.
        d_model: width, an even multiple of n_heads.
        n_layers: blocks.
        n_heads: attention heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model.
        mlp: activation of the MLPs.
        norm_eps: added to the variance.
        dropout: of embeddings, attention weights and branches.

    Raises:
        ZooError: sizes that do not divide, or a sequence that is longer than the context.
    """

    rates: Tensor  # (d / 2,)

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 2,
        d_ff: Count = 0,
        mlp: MLPKind = "gelu",
        norm_eps: NonNegative = 1e-12,
        dropout: DropoutRate = 0.1,
    ) -> None:
        super().__init__()
        if d_model % 2:
            raise ZooError(f"d_model={d_model}: sinusoids need an even width. Choose {d_model + 1}.")
        self.config = TransformerConfig(
            d_model, n_heads, d_ff=d_ff, norm="layernorm", norm_eps=norm_eps, norm_place="after", mlp=mlp, bias=True,
            dropout=dropout,
        )  # fmt: skip
        self.context = context
        self.embedding = nn.Embedding(n_in, d_model)
        self.start = nn.Parameter(torch.empty(d_model))  # of the query stream, at every place
        self.blocks = nn.ModuleList(XLNetBlock(self.config) for _ in range(n_layers))
        self.drop = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(n_out))
        rates = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float32) / d_model)  # (d / 2,)
        self.register_buffer("rates", rates, persistent=False)
        self.reset()

    def reset(self) -> None:
        """Initialise all weights."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.start, std=0.02)
        reset_blocks(self.blocks)

    # -- any order -------------------------------------------------------------------------------------------

    def two_stream(self, tokens: Tensor, rank: Tensor, places: Tensor) -> Tensor:
        """Logits (B, M, n_out) of the tokens at some places, each given the tokens of lower rank.

        Tokens of equal rank read each other, and do not predict each other. Each place needs one of lower rank.

        Args:
            tokens: (B, S).
            rank: of each token in the order (B, S).
            places: to predict (B, M).
        """
        size = self._check_length(tokens.shape[1] - 1) + 1
        column = torch.arange(size, device=tokens.device)
        reads = rank[:, None] <= rank[:, :, None]  # (B, S, S)
        before = rank[:, None] < rank.gather(1, places)[:, :, None]  # (B, M, S)
        place = torch.cat([column.expand_as(tokens), places], 1)  # (B, S + M)
        distance = place[:, :, None] - column + size - 1
        waves = self._waves(torch.arange(1 - size, size, device=tokens.device))
        query = self.start.expand(*places.shape, -1)
        return self._logits(self._run(tokens, query, waves, distance, torch.cat([reads, before], 1), None))

    def content_logits(self, tokens: Tensor) -> Tensor:
        """Logits (B, S, n_out) of the content stream, in which all tokens (B, S) read each other."""
        size = self._check_length(tokens.shape[1] - 1) + 1
        column = torch.arange(size, device=tokens.device)
        distance = (column[:, None] - column + size - 1)[None]
        waves = self._waves(torch.arange(1 - size, size, device=tokens.device))
        nothing = self.start.expand(len(tokens), 0, -1)
        return self._logits(self._run(tokens, nothing, waves, distance, distance >= 0, None))

    # -- from left to right: IncrementalDecoder --------------------------------------------------------------

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits of the next token, (B, T) -> (B, T, n_out); with a cache the tokens follow those that it holds.

        Raises:
            ZooError: more tokens than the context has positions.
        """
        length, start = tokens.shape[1], cache.used if cache else 0
        self._check_length(start + length)
        column = torch.arange(start, start + length, device=tokens.device)
        keys = torch.arange(start + length, device=tokens.device)
        allowed = (keys <= column[:, None])[None]  # (1, T, K)
        first = None if cache is None else cache.segment_starts(tokens)
        if first is not None:  # padding attends to itself: a softmax row must not be empty
            allowed = (allowed & (keys >= first[..., None])) | (keys == column[:, None])
        place = torch.cat([column, column + 1])
        distance = (place[:, None] - keys).clamp(min=0)[None]  # later keys are not read
        waves = self._waves(torch.arange(start + length + 1, device=tokens.device))
        query = self.start.expand(*tokens.shape, -1)
        x = self._run(tokens, query, waves, distance, torch.cat([allowed, allowed], 1), cache)
        if cache is not None:
            cache.used += length
        return self._logits(x)

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, KVCache]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits (B, n_out)."""
        key: Any = self.blocks[0].attention.key  # type: ignore[union-attr]
        cache = KVCache(len(self.blocks), len(tokens), self.config, self.context, output_like(key))
        cache.first = padding
        return self(tokens, cache)[:, -1], cache

    def step(self, tokens: Tensor, state: KVCache) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self(tokens[:, None], state)[:, -1]

    # -- both streams ----------------------------------------------------------------------------------------

    def _run(
        self, tokens: Tensor, query: Tensor, waves: Tensor, distance: Tensor, allowed: Tensor, cache: KVCache | None
    ) -> Tensor:
        """Features of the query stream (B, M, d), or of the content stream (B, S, d) if there are no queries.

        Rows of `distance` and `allowed` are those of the content stream, then those of the query stream.
        """
        size, waves = tokens.shape[1], self.drop(waves)
        x = self.drop(torch.cat([self.embedding(tokens), query], 1))  # (B, S + M, d)
        for layer, block in enumerate(self.blocks):
            content = x[:, :size]
            if layer == len(self.blocks) - 1 and query.shape[1]:  # nothing reads its content
                x, distance, allowed = x[:, size:], distance[:, size:], allowed[:, size:]
            x = block(x, content, waves, distance, allowed, cache, layer)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., n_out), by the embedding's transpose."""
        return F.linear(x, self.embedding.weight[: len(self.bias)], self.bias)

    def _waves(self, position: Tensor) -> Tensor:
        """Sinusoids (P, d) of distances (P,): all sines, then all cosines."""
        angle = position[:, None] * self.rates  # (P, d / 2)
        return torch.cat([angle.sin(), angle.cos()], -1).to(self.embedding.weight.dtype)

    def _check_length(self, length: int) -> int:
        if length > self.context:
            raise ZooError(
                f"sequence of {length} tokens: it is longer than the context of {self.context}. "
                f"Shorten it, or train with a longer context (data.context={length})."
            )
        return length
