"""Encoder-decoder transformer (Vaswani et al. 2017, arXiv:1706.03762)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_block import Memory, TransformerStack
from zoo.nn.blocks.transformer_config import TransformerConfig


class EncoderDecoder(nn.Module):
    """Source (B, S) and target (B, T), negative for padding -> logits (B, T, n_out).

    Args:
        n_in: input token ids, of source and target.
        n_out: output token ids, the first of the n_in.
        context: most tokens of a source, and of a target.
        shape: of all blocks.
        n_encoder: blocks of the encoder.
        n_decoder: blocks of the decoder.
        begin: token before the target.
        position_encoding: see `TransformerStack`.
        tie_weights: share the embedding with the head.
        head_scale: factor on the features before the head (T5: d_model^-1/2).
        theta: base of rotary angles.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        shape: TransformerConfig,
        *,
        n_encoder: int,
        n_decoder: int,
        begin: int,
        position_encoding: PositionEncoding = "sinusoidal",
        tie_weights: bool = True,
        head_scale: float = 1.0,
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        self.context, self.n_out, self.begin, self.head_scale = context, n_out, begin, head_scale
        self.embedding = nn.Embedding(n_in, shape.d_model)
        self.encoder = TransformerStack(
            shape, n_encoder, context, position_encoding=position_encoding, causal=False, theta=theta
        )
        self.decoder = TransformerStack(
            shape, n_decoder, context, position_encoding=position_encoding, cross=True, theta=theta
        )
        self.head = None if tie_weights else nn.Linear(shape.d_model, n_out, bias=False)
        self.reset()

    def reset(self) -> None:
        """Initialise all weights; a separate head starts at zero."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.encoder.reset()
        self.decoder.reset()
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    def encode(self, source: Tensor) -> Tensor:
        """Source (B, S) -> features (B, S, d), undefined for padding."""
        return self.encoder.run(self.embedding(source.clamp(min=0)), real=source >= 0)

    def encode_to_memory(self, source: Tensor) -> Memory:
        """Source (B, S) -> keys and values of cross-attention, and their mask."""
        return self.decoder.precompute_cross_kv(self.encode(source)), (source >= 0)[:, None, None]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of every target token (B, T, n_out), given the source and the targets before it."""
        read = F.pad(target[:, :-1].clamp(min=0), (1, 0), value=self.begin)
        return self.predict(read, self.encode_to_memory(source))

    def predict(self, tokens: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, n_out) of the token after each of the tokens (B, T)."""
        first = None if cache is None else cache.segment_starts(tokens)
        x = self.decoder.run(self.embedding(tokens), memory=memory, cache=cache, first=first)
        weight = self.embedding.weight[: self.n_out] if self.head is None else self.head.weight
        return F.linear(x * self.head_scale if self.head_scale != 1 else x, weight)

    def after(self, source: Tensor) -> "ConditionedDecoder":
        """Decoder of the sources (B, S), an `IncrementalDecoder` of `zoo.nn.samplers.autoregressive`."""
        return ConditionedDecoder(self, self.encode_to_memory(source))


@dataclass
class State:
    """State of the decoder: cached target, and encoded source."""

    cache: KVCache
    memory: Memory


class ConditionedDecoder:
    """`IncrementalDecoder` of encoded sources: row b continues source b, or all rows continue a single source.

    Args:
        net: encoder-decoder.
        memory: encoded sources.
    """

    def __init__(self, net: EncoderDecoder, memory: Memory) -> None:
        self.net, self.memory, self.context = net, memory, net.context

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, State]:
        """Read beginnings of targets (B, T); the first `padding` (B,) tokens of each row are skipped."""
        read, mask = self.memory
        if len(mask) == 1:
            rows = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
            read, mask = _select(self.memory, rows)
        cache = self.net.decoder.new_cache(len(tokens))
        cache.first = padding
        state = State(cache, (read, mask))
        return self.net.predict(tokens, state.memory, cache)[:, -1], state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self.net.predict(tokens[:, None], state.memory, state.cache)[:, -1]

    def reorder(self, state: State, rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state.cache.reorder(rows)
        state.memory = _select(state.memory, rows)


def _select(memory: Memory, rows: Tensor) -> Memory:
    read, mask = memory
    return [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in read], mask.index_select(0, rows)
