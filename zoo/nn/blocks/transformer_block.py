"""What transformers are stacked from: norms, MLPs, and the block that joins them to attention."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.nn.blocks.attention import Attention, AttentionInputs
from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.position_encoding import (
    BUCKETS,
    PositionEncoding,
    alibi_slopes,
    relative_bucket,
    rotary_angles,
    sinusoidal,
)
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig
from zoo.nn.kernels.cpu_dropout import Dropout

GATED = ("swiglu", "geglu")
Memory = tuple[list[tuple[Tensor, Tensor]], Tensor]  # keys and values for each layer, and where they may be looked at


def make_norm(kind: NormKind, size: int, eps: float = 0.0) -> nn.Module:
    """LayerNorm (Ba et al. 2016, 1607.06450), or RMSNorm (Zhang & Sennrich 2019, 1910.07467) with or without gain."""
    if kind == "layernorm":
        return nn.LayerNorm(size, eps=eps or 1e-5)
    return nn.RMSNorm(size, eps=eps or None, elementwise_affine=kind == "rmsnorm")


class MLP(nn.Module):
    """d -> hidden -> d.

    GELU exactly or by tanh, ReLU, ReLU² (So et al. 2021, 2109.08668), and the gated SwiGLU and GEGLU (Shazeer 2020,
    2002.05202), the latter by tanh as in T5.
    """

    def __init__(self, d_model: int, kind: MLPKind, d_ff: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.kind = kind
        # Gated kinds have three matrices: two thirds of the width keep the number of parameters.
        hidden = d_ff or (8 * math.ceil(d_model / 3) if kind in GATED else 4 * d_model)
        self.gate = nn.Linear(d_model, hidden, bias=bias) if kind in GATED else None
        self.up = nn.Linear(d_model, hidden, bias=bias)
        self.out = nn.Linear(hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        h = self.up(x)
        if self.gate is not None:
            gate = self.gate(x)
            h = (F.silu(gate) if self.kind == "swiglu" else F.gelu(gate, approximate="tanh")) * h
        elif self.kind in ("relu", "relu_squared"):
            h = F.relu(h) if self.kind == "relu" else F.relu(h).square()
        else:
            h = F.gelu(h, approximate="tanh" if self.kind == "gelu_tanh" else "none")
        return self.out(h)


class Block(nn.Module):
    """Adds attention to itself, to a memory (`cross`), and an MLP to x, each with a norm before it or after the sum."""

    def __init__(self, shape: TransformerConfig, cross: bool = False) -> None:
        super().__init__()
        self.after = shape.norm_place == "after"

        def norm() -> nn.Module:
            return make_norm(shape.norm, shape.d_model, shape.norm_eps)

        self.norm1, self.norm2 = norm(), norm()
        self.attention = Attention(shape)
        self.norm_cross = norm() if cross else None
        self.cross = Attention(shape) if cross else None
        self.mlp = MLP(shape.d_model, shape.mlp, shape.d_ff, shape.bias)
        self.drop = Dropout(shape.dropout)

    def forward(
        self,
        x: Tensor,
        view: AttentionInputs,
        cache: KVCache | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        if self.after:
            x = self.norm1(x + self.drop(self.attention(x, view, cache, layer)))
            if self.cross is not None and self.norm_cross is not None and memory is not None:
                x = self.norm_cross(x + self.drop(self._look_back(x, layer, memory)))
            return self.norm2(x + self.drop(self.mlp(x)))
        x = x + self.drop(self.attention(self.norm1(x), view, cache, layer))
        if self.cross is not None and self.norm_cross is not None and memory is not None:
            x = x + self.drop(self._look_back(self.norm_cross(x), layer, memory))
        return x + self.drop(self.mlp(self.norm2(x)))

    def _look_back(self, x: Tensor, layer: int, memory: Memory) -> Tensor:
        assert self.cross is not None
        read, mask = memory
        return self.cross(x, AttentionInputs(None, mask, False), None, layer, read[layer])


class TransformerStack(nn.Module):
    """Embedded tokens (B, T, d) -> features (B, T, d), through positions, blocks and a norm.

    Args:
        shape: of the blocks.
        n_layers: blocks.
        context: most positions.
        position_encoding: "learned" and "sinusoidal" are added to the embeddings; "rotary" turns queries and keys, and
            "learned_rotary" does both; "alibi" and "relative" add to the scores what depends on the distance,
            "relative" a learned number for each head.
        window: positions that each sees, itself and those before it; 0 is all.
        causal: does each position see none but those before it?
        cross: do the blocks attend to a memory too?
        theta: base of rotary angles.

    Raises:
        ZooError: rotary positions with heads of an odd width, or a window that looks both ways.
    """

    def __init__(
        self,
        shape: TransformerConfig,
        n_layers: int,
        context: int,
        *,
        position_encoding: PositionEncoding = "rotary",
        window: int = 0,
        causal: bool = True,
        cross: bool = False,
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        if "rotary" in position_encoding and shape.head % 2:
            raise ZooError(
                f"d_model={shape.d_model} does not divide into n_heads={shape.n_heads} heads of an even width, which "
                f"rotary positions need: choose d_model a multiple of {2 * shape.n_heads}, or another encoding."
            )
        self.shape, self.context, self.window, self.causal = shape, context, window, causal
        self.places = nn.Embedding(context, shape.d_model) if "learned" in position_encoding else None
        self.distances = nn.Embedding(BUCKETS, shape.n_heads) if position_encoding == "relative" else None
        self.waves: Tensor | None
        waves = (
            sinusoidal(context, shape.d_model) * 0.02 if position_encoding == "sinusoidal" else None
        )  # embeddings' scale
        self.register_buffer("waves", waves, persistent=False)
        self.angles: Tensor | None
        angles = rotary_angles(context, shape.head, theta) if "rotary" in position_encoding else None
        self.register_buffer("angles", angles, persistent=False)
        self.slopes: Tensor | None
        slopes = alibi_slopes(shape.n_heads) if position_encoding == "alibi" else None
        self.register_buffer("slopes", slopes, persistent=False)
        self.drop = Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape, cross) for _ in range(n_layers))
        self.norm = make_norm(shape.norm, shape.d_model, shape.norm_eps)

    def reset(self) -> None:
        """Draw all weights anew: normal, of standard deviation 0.02 for tables and 1 / sqrt(fan-in) for matrices, as
        norms precede them. The last matrix of every branch is zero, so that a deep stack begins as the identity.
        """
        for table in (self.places, self.distances):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.0 if name.endswith("out") else module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def new_cache(self, batch: int, room: int | None = None) -> KVCache:
        """An empty cache of `room` columns (the whole context if None)."""
        like = self.blocks[0].attention.key.weight  # type: ignore[union-attr]
        return KVCache(len(self.blocks), batch, self.shape, room or self.context, like)  # type: ignore[arg-type]

    def remember(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the blocks' cross-attention reads in another stack's features (B, S, d), layer by layer."""
        return [block.cross.read(features) for block in self.blocks]  # type: ignore[union-attr,operator]

    def run(
        self,
        x: Tensor,
        *,
        first: Tensor | None = None,
        real: Tensor | None = None,
        cache: KVCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Embedded tokens to features.

        Args:
            x: (B, T, d); with a cache these follow what it already holds.
            first: (B, T) the column with which each position's own text begins: it sees none before, and counts its
                place from there; None is 0.
            real: (B, S) of a stack that looks both ways: which positions are tokens; None is all.
            cache: of the columns before, which takes these too.
            memory: see `remember`, and a mask (B, 1, 1, S).

        Raises:
            ZooError: more tokens than the context has positions.
        """
        length, start = x.shape[1], cache.used if cache else 0
        if start + length > self.context:
            raise ZooError(
                f"a sequence of {start + length} tokens is longer than the context of {self.context}: "
                f"shorten it, or train with a longer context (data.context={start + length})."
            )
        column = torch.arange(start, start + length, device=x.device)
        place = column if first is None else (column - first).clamp(min=0)  # (T,) or (B, T)
        if self.places is not None:
            x = x + self.places(place)
        elif self.waves is not None:
            x = x + self.waves[place].to(x.dtype)
        x = self.drop(self.norm(x) if self.shape.norm_place == "after" else x)
        view = self._view(start, column, place, first, real, cache is not None)
        for layer, block in enumerate(self.blocks):
            x = block(x, view, cache, layer, memory)
        if cache is not None:
            cache.used += length
        return x if self.shape.norm_place == "after" else self.norm(x)

    def _view(
        self, start: int, column: Tensor, place: Tensor, first: Tensor | None, real: Tensor | None, cached: bool
    ) -> AttentionInputs:
        angles = None
        if self.angles is not None:
            angles = self.angles[place] if place.ndim == 1 else self.angles[place][:, None]
        seen = torch.arange(start + len(column), device=column.device) if cached else column  # (S,)
        bias = self._bias(seen - column[:, None])
        if not self.causal:
            mask = None if real is None else real[:, None, None]  # (B, 1, 1, S)
            if bias is not None:
                mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
            return AttentionInputs(angles, mask, False)
        # Attention has a fast path for a whole text and for one more token.
        if first is None and bias is None and not self.window and not (start and len(column) > 1):
            return AttentionInputs(
                angles, None, not cached or len(column) > 1
            )  # asks nothing of a length that may be symbolic
        mask = seen <= column[:, None]  # (T, S)
        if self.window:
            mask &= seen > column[:, None] - self.window
        if first is not None:  # padding sees itself, as a softmax needs one
            mask = (mask & (seen >= first[..., None])) | (seen == column[:, None])  # (B, T, S)
            mask = mask[:, None]
        return AttentionInputs(angles, mask if bias is None else bias.masked_fill(~mask, -torch.inf))

    def _bias(self, distance: Tensor) -> Tensor | None:
        """What the distance (T, S), negative for what came before, adds to scores: (1, H, T, S)."""
        if self.slopes is not None:
            return -(self.slopes[:, None, None] * distance.abs())[None]
        if self.distances is not None:
            return self.distances(relative_bucket(distance, self.causal)).permute(2, 0, 1)[None]
        return None
