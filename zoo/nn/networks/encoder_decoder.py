"""The encoder-decoder transformer (Vaswani et al. 2017, 1706.03762): reads one text whole, and writes another."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_block import Memory, TransformerStack
from zoo.nn.blocks.transformer_config import TransformerConfig


class EncoderDecoder(nn.Module):
    """Source (B, S) and target (B, T), with negative numbers where there is no token -> logits (B, T, n_out).

    Args:
        n_in: identifiers that may be read, in the source and in the target.
        n_out: identifiers that may be predicted, the first of the n_in.
        context: most tokens of a source, and of a target.
        shape: of all blocks.
        n_encoder: blocks that read the source.
        n_decoder: blocks that write the target.
        begin: the token that is read before the target.
        position_encoding: see `Stack`.
        tie_weights: the head is the embedding.
        head_scale: of the features before the head (T5 has d_model^-1/2).
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
        """Draw all weights anew; a head of its own begins at zero."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.encoder.reset()
        self.decoder.reset()
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    def encode(self, source: Tensor) -> Tensor:
        """(B, S) -> features (B, S, d); what stands where there is no token means nothing."""
        return self.encoder.run(self.embedding(source.clamp(min=0)), real=source >= 0)

    def remember(self, source: Tensor) -> Memory:
        """What the decoder looks back at."""
        return self.decoder.precompute_cross_kv(self.encode(source)), (source >= 0)[:, None, None]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of every target token, given the source and the targets before it (B, T, n_out)."""
        read = F.pad(target[:, :-1].clamp(min=0), (1, 0), value=self.begin)
        return self.predict(read, self.remember(source))

    def predict(self, tokens: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, n_out) of what comes after each of the tokens (B, T)."""
        first = None if cache is None else cache.segment_starts(tokens)
        x = self.decoder.run(self.embedding(tokens), memory=memory, cache=cache, first=first)
        weight = self.embedding.weight[: self.n_out] if self.head is None else self.head.weight
        return F.linear(x * self.head_scale if self.head_scale != 1 else x, weight)

    def after(self, source: Tensor) -> "Continuation":
        """The decoder, once it has read sources (B, S): what `zoo.nn.samplers.autoregressive` writes with."""
        return Continuation(self, self.remember(source))


@dataclass
class State:
    """What a decoder has written, and what it looks back at."""

    cache: KVCache
    memory: Memory


class Continuation:
    """A decoder that has read its sources, by the protocol of `zoo.nn.samplers.autoregressive`: row b writes after source b.

    One source serves any number of rows.
    """

    def __init__(self, net: EncoderDecoder, memory: Memory) -> None:
        self.net, self.memory, self.context = net, memory, net.context

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, State]:
        """Read beginnings of targets (B, T), whose rows begin with `padding` (B,) meaningless tokens."""
        read, mask = self.memory
        if len(mask) == 1:
            rows = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
            read, mask = _chosen(self.memory, rows)
        cache = self.net.decoder.new_cache(len(tokens))
        cache.first = padding
        state = State(cache, (read, mask))
        return self.net.predict(tokens, state.memory, cache)[:, -1], state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self.net.predict(tokens[:, None], state.memory, state.cache)[:, -1]

    def reorder(self, state: State, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""
        state.cache.reorder(rows)
        state.memory = _chosen(state.memory, rows)


def _chosen(memory: Memory, rows: Tensor) -> Memory:
    read, mask = memory
    return [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in read], mask.index_select(0, rows)
