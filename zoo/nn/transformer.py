"""A decoder-only transformer (Vaswani et al. 2017, 1706.03762), pre-norm, with a key-value cache."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError

Positions = Literal["learned", "sinusoidal", "rotary"]
NormKind = Literal["layernorm", "rmsnorm"]
MLPKind = Literal["gelu", "swiglu", "relu2"]


class Cache:
    """Keys and values of every layer, allocated once; `used` columns of them are filled.

    Rows may begin with padding (`padding` columns, on the left), which no position attends to.
    """

    def __init__(self, n_layers: int, batch: int, n_heads: int, room: int, d_head: int, like: Tensor) -> None:
        self.store = like.new_zeros(n_layers, 2, batch, n_heads, room, d_head)
        self.used = 0
        self.padding: Tensor | None = None  # (B,) columns of padding on the left

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Enter new columns (B, H, T, D) after the `used` ones; all keys and values so far (B, H, used + T,
        D).
        """
        end = self.used + k.shape[2]
        keys, values = self.store[layer]
        keys[:, :, self.used : end], values[:, :, self.used : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Row b becomes what row `rows[b]` was; the number of rows may change (beam search needs both)."""
        self.store = self.store.index_select(2, rows)
        if self.padding is not None:
            self.padding = self.padding.index_select(0, rows)


def make_norm(kind: NormKind, size: int) -> nn.Module:
    """LayerNorm (Ba et al. 2016, 1607.06450) or RMSNorm without gain (Zhang & Sennrich 2019, 1910.07467)."""
    return nn.LayerNorm(size) if kind == "layernorm" else nn.RMSNorm(size, elementwise_affine=False)


def sinusoidal(length: int, size: int) -> Tensor:
    """sin and cos of position / 10000^(2i / size), interleaved: (length, size) (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angle = torch.arange(length)[:, None] * rate  # (length, ceil(size / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :size]


def rotary_angles(length: int, d_head: int) -> Tensor:
    """Angles position * 10000^(-2i / d_head): (length, d_head / 2) (Su et al. 2021, 2104.09864)."""
    rate = torch.exp(torch.arange(0, d_head, 2) * (-math.log(10000.0) / d_head))
    return torch.arange(length)[:, None] * rate


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pair (x_i, x_{i + D/2}) by its angle, so that q.k depends on the distance of their positions alone.

    x is (B, H, T, D); angles are (T, D / 2), or (B, 1, T, D / 2) where rows stand at different positions.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Causal self-attention through `scaled_dot_product_attention`; (B, T, d) -> (B, T, d).

    `qk_norm` divides queries and keys by their RMS, which bounds the logits (Henry et al. 2020, 2010.04245).
    """

    def __init__(self, d_model: int, n_heads: int, qk_norm: bool, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.qk_norm, self.dropout = n_heads, qk_norm, dropout
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """`mask` (B or 1, 1, T, S): True where a position may look; None is causal, or all for T == 1."""
        q, k, v = (p(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for p in (self.query, self.key, self.value))
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        if cache is not None:
            k, v = cache.put(layer, k, v)
        causal = mask is None and (cache is None or q.shape[2] > 1)  # asks nothing of a length that may be symbolic
        y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """d -> hidden -> d: GELU, ReLU² (So et al. 2021, 2109.08668) or SwiGLU (Shazeer 2020, 2002.05202)."""

    def __init__(self, d_model: int, kind: MLPKind) -> None:
        super().__init__()
        self.kind = kind
        # SwiGLU has three matrices: two thirds of the width keep the number of parameters.
        hidden = 8 * math.ceil(d_model / 3) if kind == "swiglu" else 4 * d_model
        self.gate = nn.Linear(d_model, hidden, bias=False) if kind == "swiglu" else None
        self.up = nn.Linear(d_model, hidden, bias=False)
        self.out = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        h = self.up(x)
        if self.gate is not None:
            h = F.silu(self.gate(x)) * h
        else:
            h = F.gelu(h) if self.kind == "gelu" else F.relu(h).square()
        return self.out(h)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, d_model: int, n_heads: int, norm: NormKind, mlp: MLPKind, qk_norm: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(norm, d_model), make_norm(norm, d_model)
        self.attention = Attention(d_model, n_heads, qk_norm, dropout)
        self.mlp = MLP(d_model, mlp)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        x = x + self.drop(self.attention(self.norm1(x), angles, mask, cache, layer))
        return x + self.drop(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """Tokens (B, T) -> logits of the next token (B, T, n_out).

    Initialisation: normal weights of standard deviation 0.02 for embeddings and 1 / sqrt(fan-in) for matrices,
    as norms precede them; the last matrix of every branch is zero, so that a deep stack begins as the identity.

    Args:
        n_in: identifiers that may be read.
        n_out: identifiers that may be predicted, the first of the n_in.
        context: positions.
        d_model: width, a multiple of n_heads.
        n_layers: blocks.
        n_heads: attention heads.
        positions: "learned" and "sinusoidal" are added to the embeddings; "rotary" turns queries and keys.
        norm: of every branch and before the head.
        mlp: see `MLP`.
        dropout: of the embeddings, attention weights and branches.
        tie_weights: the head is the embedding (Press & Wolf 2017, 1608.05859).
        qk_norm: see `Attention`.

    Raises:
        ZooError: d_model cannot be divided into heads.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: int,
        n_layers: int,
        n_heads: int,
        positions: Positions = "rotary",
        norm: NormKind = "rmsnorm",
        mlp: MLPKind = "relu2",
        dropout: float = 0.0,
        tie_weights: bool = True,
        qk_norm: bool = True,
    ) -> None:
        super().__init__()
        d_head, rest = divmod(d_model, n_heads)
        if rest or (positions == "rotary" and d_head % 2):
            even = " of an even width" if positions == "rotary" else ""
            raise ZooError(
                f"d_model={d_model} does not divide into n_heads={n_heads} heads{even}: "
                f"choose d_model a multiple of {2 * n_heads}, or other n_heads."
            )
        self.context, self.n_out, self.n_heads, self.d_head = context, n_out, n_heads, d_head
        self.embedding = nn.Embedding(n_in, d_model)
        self.places = nn.Embedding(context, d_model) if positions == "learned" else None
        fixed = sinusoidal(context, d_model) * 0.02 if positions == "sinusoidal" else None  # embedding scale
        self.waves: Tensor | None
        self.register_buffer("waves", fixed, persistent=False)
        turning = rotary_angles(context, d_head) if positions == "rotary" else None
        self.angles: Tensor | None
        self.register_buffer("angles", turning, persistent=False)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(d_model, n_heads, norm, mlp, qk_norm, dropout) for _ in range(n_layers))
        self.norm = make_norm(norm, d_model)
        self.head = None if tie_weights else nn.Linear(d_model, n_out, bias=False)
        self.reset()

    def reset(self) -> None:
        """Draw all weights anew."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Linear):
                last = name.endswith("out") or module is self.head
                nn.init.normal_(module.weight, std=0.0 if last else module.in_features**-0.5)

    def new_cache(self, batch: int, room: int | None = None) -> Cache:
        """An empty cache of `room` columns (the whole context if None)."""
        like = self.embedding.weight
        return Cache(len(self.blocks), batch, self.n_heads, room or self.context, self.d_head, like)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, T) -> (B, T, n_out); with a cache the tokens follow those that it already holds.

        Raises:
            ZooError: more tokens than the context has positions.
        """
        length, start = tokens.shape[1], cache.used if cache else 0
        if start + length > self.context:
            raise ZooError(
                f"a sequence of {start + length} tokens is longer than the context of {self.context}: "
                f"shorten it, or train with a longer context (data.context={start + length})."
            )
        place = torch.arange(start, start + length, device=tokens.device)
        mask = None
        if cache is not None and cache.padding is not None:
            mask = self.visible(place, cache.padding)
            place = (place - cache.padding[:, None]).clamp(min=0)  # (B, T)
        elif start and length > 1:
            mask = self.visible(place, place.new_zeros(1))
        x = self.embedding(tokens)
        if self.places is not None:
            x = x + self.places(place)
        elif self.waves is not None:
            x = x + self.waves[place]
        angles = None
        if self.angles is not None:
            angles = self.angles[place] if place.ndim == 1 else self.angles[place][:, None]
        x = self.drop(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, angles, mask, cache, layer)
        if cache is not None:
            cache.used += length
        return F.linear(self.norm(x), self.embedding.weight[: self.n_out] if self.head is None else self.head.weight)

    # -- the protocol of `zoo.nn.decoding` -------------------------------------------------------------------

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Cache]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits (B, n_out)."""
        cache = self.new_cache(len(tokens))
        cache.padding = padding
        return self(tokens, cache)[:, -1], cache

    def step(self, tokens: Tensor, state: Cache) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        return self(tokens[:, None], state)[:, -1]

    def reorder(self, state: Cache, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""
        state.reorder(rows)

    @staticmethod
    def visible(place: Tensor, padding: Tensor) -> Tensor:
        """Which columns each position sees (B, 1, T, S); padding sees itself, as a softmax needs one."""
        column = torch.arange(int(place[-1]) + 1, device=place.device)
        causal = column <= place[:, None]  # (T, S)
        real = column >= padding[:, None, None]  # (B, 1, S)
        return ((causal & real) | (column == place[:, None]))[:, None]
