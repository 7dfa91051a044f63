"""Multi-head self-attention and cross-attention (Vaswani et al. 2017, 1706.03762) with a key-value cache."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.norms import make_norm
from zoo.nn.blocks.position_encoding import Rotation, rotate
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.kernels.cpu_attention import MAX_STORED_LENGTH, cpu_attention
from zoo.nn.kernels.cpu_dropout import dropout


class AttentionInputs(NamedTuple):
    """Masks and position information shared by all layers.

    Args:
        rotation: of queries and keys, by their positions.
        mask: (B or 1, 1 or H, T, S): True where attention is allowed, or a bias added to the scores.
        causal: without a mask, attend only to the same and earlier positions.
    """

    rotation: Rotation | None = None
    mask: Tensor | None = None
    causal: bool = True


class Attention(nn.Module):
    """Multi-head attention, (B, T, d) -> (B, T, d). Keys and values come from x or from a memory."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, q_dim, kv_dim = config, config.n_heads * config.head, config.kv_heads * config.head
        qkv_bias = config.bias or config.qkv_bias
        self.query = nn.Linear(config.d_model, q_dim, bias=qkv_bias)
        self.key = nn.Linear(config.d_model, kv_dim, bias=qkv_bias)
        self.value = nn.Linear(config.d_model, kv_dim, bias=qkv_bias)
        self.out = nn.Linear(q_dim, config.d_model, bias=config.bias)
        gain = config.qk_norm_gain
        self.query_norm = make_norm(config.norm, config.head, config.norm_eps) if gain else None
        self.key_norm = make_norm(config.norm, config.head, config.norm_eps) if gain else None

    def project_kv(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project a memory (B, S, d) to keys and values (B, H, S, D)."""
        k, v = (p(memory).unflatten(-1, (-1, self.config.head)).transpose(1, 2) for p in (self.key, self.value))
        return self._normalized(k, self.key_norm), v

    def _normalized(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """Normalise queries or keys (B, H, T, D)."""
        if norm is not None:
            return norm(x)
        return F.rms_norm(x, x.shape[-1:]) if self.config.qk_norm else x

    def forward(
        self,
        x: Tensor,
        inputs: AttentionInputs,
        cache: KVCache | None = None,
        layer: int = 0,
        memory: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend from x (B, T, d) to x and the cache, or to `memory`: (B, T, d).

        Args:
            x: queries are projected from it.
            inputs: mask and rotation.
            cache: keys and values of earlier tokens, extended by those of x.
            layer: index in the cache.
            memory: keys and values by `project_kv`, for cross-attention.
        """
        q, k, v = self._project_qkv(x, inputs, cache, layer, memory)
        drop, scale = self.config.dropout if self.training else 0.0, self.config.scale or None
        if not self.config.softcap and use_cpu_kernel(q, k, drop):
            if torch.is_autocast_enabled("cpu"):
                q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
            y = cpu_attention(
                q, k, v, inputs.mask, causal=inputs.causal and q.shape[2] == k.shape[2], drop=drop, scale=scale
            )
        elif self.config.softcap or (drop and q.device.type == "cpu"):  # not supported by torch's CPU kernel
            y = dropout(self._scores(q, k, inputs).softmax(-1), drop) @ v
        else:
            causal = inputs.mask is None and inputs.causal
            y = F.scaled_dot_product_attention(q, k, v, inputs.mask, drop, is_causal=causal, scale=scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, inputs: AttentionInputs, *args: Any) -> Tensor:
        """Attention weights (B, H, T, S); rows sum to one. Arguments as in `forward`."""
        q, k, _ = self._project_qkv(x, inputs, *args)
        return self._scores(q, k, inputs).softmax(-1)

    def _project_qkv(
        self,
        x: Tensor,
        inputs: AttentionInputs,
        cache: KVCache | None = None,
        layer: int = 0,
        memory: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, H, S, D)."""
        config = self.config
        q = self.query(x).unflatten(-1, (-1, config.head)).transpose(1, 2)
        q = self._normalized(q, self.query_norm)
        k, v = self.project_kv(x) if memory is None else memory
        if memory is None and inputs.rotation is not None:
            q, k = rotate(q, inputs.rotation), rotate(k, inputs.rotation)
        if memory is None and cache is not None:
            k, v = cache.update(layer, k, v)
        if (group := config.n_heads // config.kv_heads) > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        return q, k, v

    def _scores(self, q: Tensor, k: Tensor, inputs: AttentionInputs) -> Tensor:
        """Attention scores before the softmax, (B, H, T, S)."""
        scores = (q * (self.config.scale or q.shape[-1] ** -0.5)) @ k.mT
        if cap := self.config.softcap:
            scores = cap * (scores / cap).tanh()
        mask = inputs.mask
        if mask is None and inputs.causal:
            mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is None:
            return scores
        return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def use_cpu_kernel(q: Tensor, k: Tensor, drop: float) -> bool:
    """Whether `cpu_attention` is faster: on CPUs in training, at the cost of memory."""
    if q.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False  # the compiler and torch.func need native operations
    return drop > 0 or (q.requires_grad and k.shape[2] <= MAX_STORED_LENGTH)


@torch.no_grad()
def attention_maps(net: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """Run `run`, and return the weights (B, H, T, S) of every attention layer inside a network, by layer name."""
    maps: dict[str, Tensor] = {}

    def capture(name: str) -> Callable[..., None]:
        def hook(module: Attention, args: tuple[Any, ...]) -> None:
            x, inputs, _, layer, memory = (*args, None, 0, None)[:5] if len(args) < 5 else args
            maps[name] = module.weights(x, inputs, None, layer, memory)

        return hook

    hooks = [m.register_forward_pre_hook(capture(n)) for n, m in net.named_modules() if isinstance(m, Attention)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return maps
