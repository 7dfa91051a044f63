"""Attention (Vaswani et al. 2017, 1706.03762), to oneself and to what another has read, with a key-value cache."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.position_encoding import rotate
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.kernels.cpu_attention import LONGEST, cpu_attention
from zoo.nn.kernels.cpu_dropout import dropout


class AttentionInputs(NamedTuple):
    """What every position sees, the same for all layers.

    Args:
        angles: of rotary positions: (T, D / 2), or (B, 1, T, D / 2).
        mask: (B or 1, 1 or H, T, S): True where a position may look, or what is added to its scores.
        causal: without a mask, does each position see none but those before it?
    """

    angles: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = True


class Attention(nn.Module):
    """Multi-head attention; (B, T, d) -> (B, T, d). Queries come from x, keys and values from x or from a memory."""

    def __init__(self, shape: TransformerConfig) -> None:
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
        view: AttentionInputs,
        cache: KVCache | None = None,
        layer: int = 0,
        memory: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`memory` is what `read` made of another text; without it x attends to itself, and to what is cached."""
        q, k, v = self._project(x, view, cache, layer, memory)
        drop, scale = self.shape.dropout if self.training else 0.0, self.shape.scale or None
        if not self.shape.softcap and use_cpu_kernel(q, k, drop):
            if torch.is_autocast_enabled("cpu"):
                q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
            y = cpu_attention(
                q, k, v, view.mask, causal=view.causal and q.shape[2] == k.shape[2], drop=drop, scale=scale
            )
        elif self.shape.softcap or (drop and q.device.type == "cpu"):  # for which torch has no kernel there
            y = dropout(self._scores(q, k, view).softmax(-1), drop) @ v
        else:
            causal = view.mask is None and view.causal
            y = F.scaled_dot_product_attention(q, k, v, view.mask, drop, is_causal=causal, scale=scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, view: AttentionInputs, *args: Any) -> Tensor:
        """How much each position looks at each other, (B, H, T, S): rows sum to one. Arguments as in `forward`."""
        q, k, _ = self._project(x, view, *args)
        return self._scores(q, k, view).softmax(-1)

    def _project(
        self,
        x: Tensor,
        view: AttentionInputs,
        cache: KVCache | None = None,
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

    def _scores(self, q: Tensor, k: Tensor, view: AttentionInputs) -> Tensor:
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


def use_cpu_kernel(q: Tensor, k: Tensor, drop: float) -> bool:
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
