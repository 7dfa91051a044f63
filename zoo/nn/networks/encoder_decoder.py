"""Encoder-decoders: the base class, its incremental decoder, and the transformer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, NonNegative, Positive, PositiveInt
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_block import Memory, TransformerStack
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig


class EncoderDecoder(nn.Module):
    """Source (B, S), negative for padding, and tokens (B, T) -> logits (B, T, n_out) of the token after each.

    A subclass sets `context`, the most tokens of a target, and writes `encode`, `new_cache` and `decode`. An optional
    method `cross_attention` returns attention weights, and an optional attribute `blocks` the layers for Muon.
    """

    context: int

    def encode(self, source: Tensor) -> Any:
        """Source (B, S) -> memory: tensors (B, ...) in nested tuples and lists.

        A mask is among them, and zeros at the end of S add nothing where it is False.
        """
        raise NotImplementedError

    def new_cache(self, memory: Any, padding: Tensor | None) -> Any:
        """State before the first token, with a method `reorder(rows)`; it skips `padding` (B,) tokens of each row.

        An optional method `merge(other)` returns the state of the rows of both. Targets of several batches of sources
        are then decoded together. An optional `trim()` removes columns without text.
        """
        raise NotImplementedError

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Logits (B, T, n_out) of the token after each of the tokens (B, T), which follow those in the cache."""
        raise NotImplementedError

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, T, n_out) of the token after each of the tokens (B, T), given the source."""
        return self.decode(tokens, self.encode(source))

    def after(self, source: Tensor) -> "ConditionedDecoder":
        """Decoder of the sources (B, S), an `IncrementalDecoder` of `zoo.nn.samplers.autoregressive`."""
        return ConditionedDecoder(self, self.encode(source), len(source))


@dataclass
class State:
    """State of a decoder: the encoded sources, and a cache of the tokens so far."""

    memory: Any
    cache: Any


class ConditionedDecoder:
    """`IncrementalDecoder` of encoded sources: row b continues source b, or all rows continue a single source.

    Args:
        net: encoder-decoder.
        memory: encoded sources.
        n_sources: number of sources.
    """

    def __init__(self, net: EncoderDecoder, memory: Any, n_sources: int) -> None:
        self.net, self.memory, self.n_sources, self.context = net, memory, n_sources, net.context

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, State]:
        """Read beginnings of targets (B, T); the first `padding` (B,) tokens of each row are skipped."""
        memory = self.memory
        if self.n_sources == 1:
            memory = select_rows(memory, torch.zeros(len(tokens), dtype=torch.long, device=tokens.device))
        state = State(memory, self.net.new_cache(memory, padding))
        return self.net.decode(tokens, memory, state.cache)[:, -1], state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self.net.decode(tokens[:, None], state.memory, state.cache)[:, -1]

    def reorder(self, state: State, rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state.cache.reorder(rows)
        state.memory = select_rows(state.memory, rows)

    def merges(self, state: State) -> bool:
        """Whether `merge` takes a state."""
        return hasattr(state.cache, "merge")

    def joins(self, other: Any) -> bool:
        """Whether another decoder continues a state of this one: it is of the same network, with other sources."""
        return isinstance(other, ConditionedDecoder) and other.net is self.net

    def merge(self, state: State, other: State) -> State:
        """State of the rows of both; neither may be used afterwards."""
        return State(join_rows(state.memory, other.memory), state.cache.merge(other.cache))

    def trim(self, state: State) -> None:
        """Remove columns without text."""
        if hasattr(state.cache, "trim"):
            state.cache.trim()

    def of_rows(self, state: State, rows: Tensor) -> "ConditionedDecoder":
        """Decoder of the sources of some rows of a state."""
        return ConditionedDecoder(self.net, select_rows(state.memory, rows), len(rows))


def select_rows(tree: Any, rows: Tensor) -> Any:
    """Select rows of all tensors (B, ...) in nested tuples and lists."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, rows)
    return type(tree)(select_rows(part, rows) for part in tree)


def join_rows(tree: Any, other: Any) -> Any:
    """Rows of both, of tensors (B, ...) in nested tuples and lists; zeros or False fill the shorter dimensions."""
    if not isinstance(tree, Tensor):
        return type(tree)(join_rows(a, b) for a, b in zip(tree, other, strict=True))
    sizes = [max(a, b) for a, b in zip(tree.shape[1:], other.shape[1:], strict=True)]
    joined = tree.new_zeros(len(tree) + len(other), *sizes)
    for rows, part in ((joined[: len(tree)], tree), (joined[len(tree) :], other)):
        rows[(slice(None), *map(slice, part.shape[1:]))] = part
    return joined


@register("backbone", "transformer_encoder_decoder")
class TransformerEncoderDecoder(EncoderDecoder):
    """Transformer that reads a source and predicts a target (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        n_in: token ids that can be read, in source and target.
        n_out: token ids that can be predicted, the first of the n_in.
        context: most tokens of a source, and of a target.
        d_model: width, a multiple of n_heads.
        n_layers: blocks of the encoder, and of the decoder where `n_decoder` is 0.
        n_decoder: blocks of the decoder; 0 is n_layers.
        n_heads: attention heads.
        d_head: width of a head; 0 is d_model / n_heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model, or two thirds of it for the gated kinds.
        position_encoding: see `zoo.nn.blocks.transformer_block.TransformerStack`.
        norm: see `zoo.nn.blocks.norms.make_norm`.
        norm_eps: added to the variance; 0 is torch's default.
        pre_norm: normalise before every branch, and not after its sum as in the paper.
        mlp: kind of MLP; geglu is T5 1.1.
        bias: biases in linear layers.
        qk_norm: RMS normalisation of queries and keys.
        attention_scale: factor on the products of queries and keys; 0 is d_head^-1/2 (T5's published weights: 1).
        head_scale: factor on the features before the head (T5's published weights with tied heads: d_model^-1/2).
        dropout: of embeddings, attention and branches.
        tie_weights: share one matrix between both embeddings and the head.
        norm_embeddings: normalise the sums of embeddings and positions (BART, mBART); by default post-norm does.
        scale_embeddings: multiply embeddings by sqrt(d_model), as in the paper.
        head_bias: add a bias to the logits (Marian).

    Raises:
        ZooError: sizes that do not divide.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 256,
        n_layers: PositiveInt = 3,
        n_decoder: Count = 0,
        n_heads: PositiveInt = 4,
        d_head: Count = 0,
        d_ff: Count = 0,
        position_encoding: PositionEncoding = "sinusoidal",
        norm: NormKind = "layernorm",
        norm_eps: NonNegative = 0.0,
        pre_norm: bool = False,
        mlp: MLPKind = "relu",
        bias: bool = True,
        qk_norm: bool = False,
        attention_scale: NonNegative = 0.0,
        head_scale: Positive = 1.0,
        dropout: DropoutRate = 0.1,
        tie_weights: bool = True,
        norm_embeddings: bool | None = None,
        scale_embeddings: bool = False,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        config = TransformerConfig(
            d_model, n_heads, d_head=d_head, d_ff=d_ff, norm=norm, norm_eps=norm_eps,
            norm_place="before" if pre_norm else "after", mlp=mlp, bias=bias, qk_norm=qk_norm,
            scale=attention_scale, dropout=dropout,
        )  # fmt: skip
        self.context, self.n_out, self.head_scale = context, n_out, head_scale
        self.embedding = nn.Embedding(n_in, d_model)
        self.embedding_scale = d_model**0.5 if scale_embeddings else 1.0
        self.encoder = TransformerStack(
            config, n_layers, context,
            position_encoding=position_encoding, causal=False, norm_embeddings=norm_embeddings,
        )  # fmt: skip
        self.decoder = TransformerStack(
            config, n_decoder or n_layers, context,
            position_encoding=position_encoding, cross=True, norm_embeddings=norm_embeddings,
        )  # fmt: skip
        self.head = None if tie_weights else nn.Linear(d_model, n_out, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(n_out)) if head_bias else None
        self.reset()

    def reset(self) -> None:
        """Initialise all weights; a separate head starts at zero."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.encoder.reset()
        self.decoder.reset()
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
        if self.head_bias is not None:
            nn.init.zeros_(self.head_bias)

    @property
    def blocks(self) -> nn.ModuleList:
        """Blocks of encoder and decoder."""
        return nn.ModuleList([self.encoder.blocks, self.decoder.blocks])

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> embeddings (B, T, d)."""
        x: Tensor = self.embedding(tokens)
        return x if self.embedding_scale == 1 else x * self.embedding_scale

    def encode(self, source: Tensor) -> Memory:
        """Source (B, S) -> keys and values of cross-attention, and their mask (B, 1, 1, S)."""
        real = source >= 0
        features = self.encoder.run(self.embed(source.clamp(min=0)), real=real)  # (B, S, d), undefined for padding
        return self.decoder.precompute_cross_kv(features), real[:, None, None]

    def new_cache(self, memory: Memory, padding: Tensor | None) -> KVCache:
        """Empty key-value cache."""
        cache = self.decoder.new_cache(len(memory[1]))
        cache.first = padding
        return cache

    def decode(self, tokens: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, n_out) of the token after each of the tokens (B, T), which follow those in the cache."""
        first = None if cache is None else cache.segment_starts(tokens)
        x = self.decoder.run(self.embed(tokens), memory=memory, cache=cache, first=first)  # (B, T, d)
        weight = self.embedding.weight[: self.n_out] if self.head is None else self.head.weight
        return F.linear(x * self.head_scale if self.head_scale != 1 else x, weight, self.head_bias)

    def cross_attention(self, source: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Attention weights (B, H, T, S) of each decoder block."""
        maps = attention_maps(self, lambda: self(source, tokens))
        return {name: weights for name, weights in maps.items() if "cross" in name}
