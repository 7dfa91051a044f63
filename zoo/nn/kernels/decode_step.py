"""One step of decoding on processors with as few operations as possible, beside the network's own `forward`.

A step of a small model takes as long as its operations take to start. Here a row is a vector (B, d) and not a text of
one token. Queries and keys are normalised and rotated together. A residual sum is part of a matrix product. Groups
of queries that share a key are rows of one product, so keys and values are never copied.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks import int4, int8
from zoo.nn.blocks.attention import Attention
from zoo.nn.blocks.int4 import Int4Linear
from zoo.nn.blocks.int8 import Int8Linear
from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.mlp import GATED, MLP
from zoo.nn.blocks.transformer_block import Block, TransformerStack

Product = Callable[[Tensor], Tensor]  # (B, in) -> (B, out)
Sum = Callable[[Tensor, Tensor], Tensor]  # (B, out), (B, in) -> (B, out)
Hook = TypeVar("Hook", bound=Callable[..., None])


@dataclass
class Layer:
    """Operations of a block on vectors (B, d)."""

    attention: Attention
    windowed: bool
    query: Product
    key: Product
    value: Product
    add_attention: Sum
    norm1: Product
    norm2: Product
    add_mlp: Sum  # of the normalised input


class DecodeStep:
    """Features of one more token per row, equal to those of `TransformerStack.run` to within rounding.

    It refers to the weights at the time of its creation, so it belongs to one generation.

    Args:
        stack: which `supported` accepts.
    """

    def __init__(self, stack: TransformerStack) -> None:
        self.stack, every = stack, stack.global_every
        self.layers = []
        for number, block in enumerate(stack.blocks):
            assert isinstance(block, Block)
            a = block.attention
            windowed = bool(stack.window) and not (every and (number + 1) % every == 0)
            products = (product(a.query), product(a.key), product(a.value))
            norms = normalisation(block.norm1), normalisation(block.norm2)
            self.layers.append(Layer(a, windowed, *products, add(a.out), *norms, add_mlp(block.mlp)))
        self.norm = normalisation(stack.norm)

    def __call__(self, x: Tensor, cache: KVCache) -> Tensor:
        """Embedded tokens (B, d) -> features (B, d); their keys and values are added to the cache."""
        stack, used, first = self.stack, cache.used, cache.first
        position: Any = used if first is None else (used - first).clamp(min=0)  # number, or (B,)
        if stack.position_embedding is not None:
            x = x + stack.position_embedding.weight[position]
        elif stack.sinusoids is not None:
            x = x + stack.sinusoids[position].to(x.dtype)
        turn = near = self.turn(stack.angles, position, stack.rotary_factor, x.dtype)
        if stack.window_angles is not None:
            near = self.turn(stack.window_angles, position, 1.0, x.dtype)
        stored = cache.room_for(1)
        mask = None if first is None else torch.arange(used + 1, device=x.device) >= first[:, None, None, None]
        for layer, (keys, values) in zip(self.layers, stored, strict=True):
            begin = max(used + 1 - stack.window, 0) if layer.windowed else 0
            h = layer.norm1(x)
            y = self.attend(layer, h, near if layer.windowed else turn, keys, values, begin, used, mask)
            x = layer.add_attention(x, y)
            x = layer.add_mlp(x, layer.norm2(x))
        cache.used += 1
        return self.norm(x)

    @staticmethod
    def turn(angles: Tensor | None, position: Any, factor: float, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Cosines, and sines with the sign of their place, (R,) or (B, 1, R), of `rotate`."""
        if angles is None:
            return None
        angle = angles[position]  # (R / 2,) or (B, R / 2)
        cos, sin = angle.cos(), angle.sin()
        both = torch.cat((cos, cos, -sin, sin), -1)
        if factor != 1:
            both = both * factor
        both = both.to(dtype)
        cos, sin = (both if both.ndim == 1 else both[:, None]).chunk(2, -1)
        return cos, sin

    @staticmethod
    def attend(
        layer: Layer,
        h: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        keys: Tensor,
        values: Tensor,
        begin: int,
        used: int,
        mask: Tensor | None,
    ) -> Tensor:
        """Output of attention (B, H D) before its projection, of normalised features h (B, d)."""
        config, a = layer.attention.config, layer.attention
        width, n = config.head, config.n_heads
        q, k = layer.query(h), layer.key(h)
        if a.query_norm is not None:
            q, k = (norm(some.unflatten(-1, (-1, width))) for norm, some in ((a.query_norm, q), (a.key_norm, k)))  # type: ignore[misc]
            both = torch.cat((q, k), 1)  # (B, H + G, D)
        else:
            both = torch.cat((q, k), 1).view(len(h), -1, width)
            if config.qk_norm:
                both = rms_norm(both, None, torch.finfo(both.dtype).eps)
        if turn is not None:
            cos, sin = turn
            part = both if cos.shape[-1] == width else both[..., : cos.shape[-1]]
            half = cos.shape[-1] // 2
            swapped = torch.cat((part[..., half:], part[..., :half]), -1)
            part = torch.addcmul(part * cos, swapped, sin)
            both = part if cos.shape[-1] == width else torch.cat((part, both[..., cos.shape[-1] :]), -1)
        keys.select(2, used).copy_(both[:, n:])
        values.select(2, used).copy_(layer.value(h).view(len(h), -1, width))
        size = used + 1 - begin
        y = F.scaled_dot_product_attention(
            both[:, :n].unflatten(1, (config.kv_heads, -1)),  # (B, G, H / G, D)
            keys.narrow(2, begin, size), values.narrow(2, begin, size),
            None if mask is None else mask[..., begin:], scale=config.scale or None,
        )  # fmt: skip
        return y.flatten(1)


def rms_norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """RMSNorm (..., d) -> (..., d): sqrt(d) x / sqrt(|x|^2 + d eps), with fewer operations than torch's.

    Args:
        x: vectors.
        gain: (d,), multiplied by sqrt(d) already; None is 1.
        eps: added to the mean square.
    """
    size = x.shape[-1]
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    norm = torch.hypot(norm, torch.full((), (size * eps) ** 0.5, dtype=norm.dtype))
    return x / norm.mul_(size**-0.5) if gain is None else x / norm * gain


def normalisation(norm: nn.Module) -> Product:
    """A norm without the calls around it."""
    if type(norm) is nn.LayerNorm:
        shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        return lambda x: F.layer_norm(x, shape, weight, bias, eps)
    if type(norm) is nn.RMSNorm:
        eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
        gain = None if norm.weight is None else norm.weight * norm.normalized_shape[0] ** 0.5
        return lambda x: rms_norm(x, gain, eps) if x.dtype == torch.float32 else norm(x)
    return norm


def product(layer: nn.Module) -> Product:
    """The product with the matrix of a layer, without the calls around it."""
    if isinstance(layer, Int8Linear) and layer.bias is None and layer.fast:
        steps, scale = layer.steps, layer.scale.bfloat16()
        return lambda x: int8.KERNEL(x.bfloat16(), steps, scale).to(x.dtype)
    if isinstance(layer, Int4Linear) and layer.bias is None and layer.fast:
        packed, scale_and_zero = layer.packed, layer.scale_and_zero
        return lambda x: int4.KERNEL(x.bfloat16(), packed, int4.GROUP, scale_and_zero).to(x.dtype)
    if type(layer) is not nn.Linear:
        return layer
    weight, bias = layer.weight, layer.bias
    return lambda x: F.linear(x, weight, bias)


def add(layer: nn.Module) -> Sum:
    """The sum of a vector and the product with the matrix of a layer."""
    if type(layer) is nn.Linear and layer.bias is None:
        weight = layer.weight.t()
        return lambda x, h: torch.addmm(x, h, weight)
    through = product(layer)
    return lambda x, h: x + through(h)


def add_mlp(mlp: nn.Module) -> Sum:
    """The sum of a vector and an MLP of another."""
    if not isinstance(mlp, MLP) or mlp.kind not in ("swiglu", "relu_squared"):
        return lambda x, h: x + mlp(h)
    up, out = product(mlp.up), add(mlp.out)
    if mlp.kind not in GATED:
        return lambda x, h: out(x, F.relu(up(h)).square_())
    assert mlp.gate is not None
    gate = product(mlp.gate)
    return lambda x, h: out(x, F.silu(gate(h)).mul_(up(h)))


def supported(stack: TransformerStack) -> bool:
    """Whether `DecodeStep` computes what a stack computes: pre-norm, on a processor, without biases of scores.

    Layers are plain or quantised linear ones. Modules do not have hooks, except for `passive` ones of the stack itself.
    """
    config = stack.config
    if config.norm_place != "before" or config.parallel_residual or config.softcap or not stack.causal:
        return False
    if stack.norm_embedding is not None or stack.slopes is not None or stack.relative_bias is not None:
        return False
    if stack.angles is not None and stack.angles.ndim > 2:  # other angles for long texts
        return False
    weight = next(chain(stack.parameters(), stack.buffers()))
    plain = (nn.Linear, Int8Linear, Int4Linear)
    return (
        weight.device.type == "cpu"
        and all(block.cross is None for block in stack.blocks)
        and all(type(layer) in plain for layer in projections(stack))
        and not any(m._forward_hooks or m._forward_pre_hooks for m in stack.modules() if m is not stack)
        and not stack._forward_hooks
        and all(getattr(hook, "passive", False) for hook in stack._forward_pre_hooks.values())
    )


def passive(hook: Hook) -> Hook:
    """Mark a forward pre-hook that reads and changes nothing, such as one that interrupts: a fast step calls it too."""
    hook.passive = True  # type: ignore[attr-defined]
    return hook


def projections(stack: TransformerStack) -> Iterator[Any]:
    """Linear layers of the attention."""
    for block in stack.blocks:
        a: Any = block.attention
        yield from (a.query, a.key, a.value, a.out)


def usable() -> bool:
    """Whether the mode of the process allows it: without gradients, mixed precision and compilers."""
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
