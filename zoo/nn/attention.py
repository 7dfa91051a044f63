"""Attention (Vaswani et al. 2017, 1706.03762), to oneself and to what another has read, with a key-value cache."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.nn.blockwise import LONGEST, attend
from zoo.nn.dropout import dropout
from zoo.nn.positions import rotate

NormKind = Literal["layernorm", "rmsnorm", "rmsnorm_gain"]
MLPKind = Literal["gelu", "gelu_tanh", "relu", "relu2", "swiglu", "geglu"]


@dataclass(frozen=True)
class Shape:
    """What the blocks of a stack have in common.

    Args:
        d_model: width, a multiple of n_heads.
        n_heads: attention heads.
        n_kv_heads: heads of keys and values, each shared by a group of n_heads / n_kv_heads queries (Ainslie et al.
            2023, 2305.13245); 0 is n_heads.
        d_head: width of a head; 0 is d_model / n_heads.
        d_ff: hidden width of an MLP; 0 is 4 d_model, or two thirds of it for the gated kinds.
        norm: see `make_norm`.
        norm_eps: added to the variance; 0 is torch's own choice.
        norm_place: before every branch and at the end of the stack, or after every branch's sum and the embedding.
        mlp: see `MLP`.
        bias: do linear maps have one?
        qk_norm: divide queries and keys by their RMS, which bounds their products (Henry et al. 2020, 2010.04245).
        softcap: c tanh(score / c) instead of a score; 0 is off (Gemma 2, 2408.00118).
        scale: of the products of queries and keys; 0 is d_head^-1/2.
        dropout: of embeddings, attention weights and branches.

    Raises:
        ZooError: heads that do not divide the width, or groups that do not divide the heads.
    """

    d_model: int
    n_heads: int
    n_kv_heads: int = 0
    d_head: int = 0
    d_ff: int = 0
    norm: NormKind = "rmsnorm"
    norm_eps: float = 0.0
    norm_place: Literal["before", "after"] = "before"
    mlp: MLPKind = "relu2"
    bias: bool = False
    qk_norm: bool = False
    softcap: float = 0.0
    scale: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.d_head and self.d_model % self.n_heads:
            raise ZooError(
                f"d_model={self.d_model} does not divide into n_heads={self.n_heads} heads: choose d_model a multiple "
                f"of {2 * self.n_heads}, or other n_heads."
            )
        if self.n_heads % self.kv_heads:
            raise ZooError(
                f"n_heads={self.n_heads} queries cannot share n_kv_heads={self.kv_heads} keys evenly: choose "
                "n_kv_heads that divides n_heads, or 0 for one each."
            )

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_heads or self.n_heads


class View(NamedTuple):
    """What every position sees, the same for all layers.

    Args:
        angles: of rotary positions: (T, D / 2), or (B, 1, T, D / 2).
        mask: (B or 1, 1 or H, T, S): True where a position may look, or what is added to its scores.
        causal: without a mask, does each position see none but those before it?
    """

    angles: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = True


class Cache:
    """Keys and values of every layer, allocated once; `used` columns of them are filled.

    Args:
        n_layers: of the stack.
        batch: rows.
        shape: of its blocks.
        room: columns.
        like: a tensor with their type and device.
    """

    def __init__(self, n_layers: int, batch: int, shape: Shape, room: int, like: Tensor) -> None:
        self.store = like.new_zeros(n_layers, 2, batch, shape.kv_heads, room, shape.head)
        self.used = 0
        self.first: Tensor | None = None  # (B,) the column each row's text begins with: padding comes before; None is 0

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Enter new columns (B, H, T, D) after the `used` ones; all keys and values so far (B, H, used + T, D)."""
        end = self.used + k.shape[2]
        keys, values = self.store[layer]
        keys[:, :, self.used : end], values[:, :, self.used : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def beginnings(self, tokens: Tensor) -> Tensor | None:
        """The column with which the text of each of the tokens (B, T) begins; None where all begin with the first."""
        return None if self.first is None else self.first[:, None].expand_as(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Row b becomes what row `rows[b]` was; the number of rows may change (beam search needs both)."""
        self.store = self.store.index_select(2, rows)
        if self.first is not None:
            self.first = self.first.index_select(0, rows)


class Attention(nn.Module):
    """Multi-head attention; (B, T, d) -> (B, T, d). Queries come from x, keys and values from x or from a memory."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, wide, narrow = shape, shape.n_heads * shape.head, shape.kv_heads * shape.head
        self.query = nn.Linear(shape.d_model, wide, bias=shape.bias)
        self.key = nn.Linear(shape.d_model, narrow, bias=shape.bias)
        self.value = nn.Linear(shape.d_model, narrow, bias=shape.bias)
        self.out = nn.Linear(wide, shape.d_model, bias=shape.bias)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of what is attended to, (B, S, d) -> (B, H, S, D) each."""
        k, v = (p(memory).unflatten(-1, (-1, self.shape.head)).transpose(1, 2) for p in (self.key, self.value))
        return (F.rms_norm(k, k.shape[-1:]) if self.shape.qk_norm else k), v

    def forward(
        self,
        x: Tensor,
        view: View,
        cache: Cache | None = None,
        layer: int = 0,
        memory: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`memory` is what `read` made of another text; without it x attends to itself, and to what is cached."""
        q, k, v = self._project(x, view, cache, layer, memory)
        drop, scale = self.shape.dropout if self.training else 0.0, self.shape.scale or None
        if not self.shape.softcap and in_blocks(q, k, drop):
            if torch.is_autocast_enabled("cpu"):
                q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
            y = attend(q, k, v, view.mask, causal=view.causal and q.shape[2] == k.shape[2], drop=drop, scale=scale)
        elif self.shape.softcap or (drop and q.device.type == "cpu"):  # for which torch has no kernel there
            y = dropout(self._scores(q, k, view).softmax(-1), drop) @ v
        else:
            causal = view.mask is None and view.causal
            y = F.scaled_dot_product_attention(q, k, v, view.mask, drop, is_causal=causal, scale=scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, view: View, *args: Any) -> Tensor:
        """How much each position looks at each other, (B, H, T, S): rows sum to one. Arguments as in `forward`."""
        q, k, _ = self._project(x, view, *args)
        return self._scores(q, k, view).softmax(-1)

    def _project(
        self,
        x: Tensor,
        view: View,
        cache: Cache | None = None,
        layer: int = 0,
        memory: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, H, S, D)."""
        shape = self.shape
        q = self.query(x).unflatten(-1, (-1, shape.head)).transpose(1, 2)
        if shape.qk_norm:
            q = F.rms_norm(q, q.shape[-1:])
        k, v = self.read(x) if memory is None else memory
        if memory is None and view.angles is not None:
            q, k = rotate(q, view.angles), rotate(k, view.angles)
        if memory is None and cache is not None:
            k, v = cache.put(layer, k, v)
        if (group := shape.n_heads // shape.kv_heads) > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        return q, k, v

    def _scores(self, q: Tensor, k: Tensor, view: View) -> Tensor:
        """Products of queries and keys, as the softmax gets them: (B, H, T, S)."""
        scores = (q * (self.shape.scale or q.shape[-1] ** -0.5)) @ k.mT
        if cap := self.shape.softcap:
            scores = cap * (scores / cap).tanh()
        mask = view.mask
        if mask is None and view.causal:
            mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is None:
            return scores
        return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def in_blocks(q: Tensor, k: Tensor, drop: float) -> bool:
    """Is the zoo's own attention the faster one? On a processor it is, in training, but takes more memory."""
    if q.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False  # the compiler and torch.func look into operations
    return drop > 0 or (q.requires_grad and k.shape[2] <= LONGEST)


@torch.no_grad()
def attention_maps(net: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """The weights (B, H, T, S) of every attention inside a network while `run` runs, by the attention's name."""
    maps: dict[str, Tensor] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(module: Attention, args: tuple[Any, ...]) -> None:
            x, view, _, layer, memory = (*args, None, 0, None)[:5] if len(args) < 5 else args
            maps[name] = module.weights(x, view, None, layer, memory)

        return hook

    hooks = [m.register_forward_pre_hook(look(n)) for n, m in net.named_modules() if isinstance(m, Attention)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return maps
