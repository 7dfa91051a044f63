"""LoRA (Hu et al. 2021, 2106.09685), rsLoRA, DoRA and QLoRA: a frozen matrix W becomes W + scale up down."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.nn.blocks.int4 import GROUP, LEVELS, dequantized, quantized


class LoRALinear(nn.Linear):
    """Linear layer with frozen weights under their old names and a trainable low-rank correction.

    With `dora`, the rows of V = W + scale up down give directions only: the weight is magnitude V / ||V||, with a norm
    per row (Liu et al. 2024, 2402.09353, equation 5). Gradients take the norm as a constant (section 4.3).

    Args:
        base: the layer; its weight and bias are shared, and frozen.
        rank: rank of the correction.
        alpha: the correction is scaled by alpha / rank, so that one learning rate suits every rank.
        rslora: scale by alpha / sqrt(rank), which does not vanish at high ranks (Kalajdzievski 2023, 2312.03732).
        dora: train the norms of rows too. A row of zeros, which does not have a direction, stays zero.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, *, rslora: bool = False, dora: bool = False) -> None:
        nn.Module.__init__(self)  # Linear.__init__ would draw unused weights
        self.in_features, self.out_features, self.bias = base.in_features, base.out_features, base.bias
        base.weight.requires_grad_(False)
        self.keep(base.weight)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.scale, self.active = alpha / (math.sqrt(rank) if rslora else rank), True
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # initially the correction is zero
        self.magnitude = nn.Parameter(base.weight.new_empty(base.out_features)) if dora else None
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.reset_magnitude()

    def keep(self, weight: Tensor) -> None:
        """Store the frozen matrix."""
        self.weight = weight

    @torch.no_grad()
    def reset_magnitude(self) -> None:
        """Set the magnitudes to the norms of the rows, so that the layer computes the same as without magnitudes."""
        if self.magnitude is not None:
            self.magnitude.copy_(self._direction().norm(dim=1))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if not self.active:
            return self.frozen(input, self.bias)
        correction = self.scale * F.linear(F.linear(input, self.down), self.up)  # (..., out)
        if self.magnitude is None:
            return self.frozen(input, self.bias) + correction
        changed = self._ratio() * (self.frozen(input, None) + correction)
        return changed if self.bias is None else changed + self.bias

    def frozen(self, input: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in) -> (..., out) by the frozen matrix."""
        return F.linear(input, self.weight, bias)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return an equivalent plain layer."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        weight = self._direction()  # (out, in)
        layer.weight = nn.Parameter(weight if self.magnitude is None else self._ratio()[:, None] * weight)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone())
        return layer

    def _direction(self) -> Tensor:
        """W + scale up down: (out, in)."""
        return self.weight + self.scale * self.up @ self.down

    def _ratio(self) -> Tensor:
        """Magnitude by norm of each row (out,); the norm is a constant of the gradient."""
        assert self.magnitude is not None
        with torch.no_grad():
            norm = self._direction().norm(dim=1).clamp(min=torch.finfo(self.weight.dtype).tiny)
        return self.magnitude / norm


class FrozenInt4(torch.autograd.Function):
    """x W^T for a matrix in 4 bits. W is computed again for the gradient, so that autograd keeps the 4 bits alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, scale_and_zero: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        ctx.save_for_backward(packed, scale_and_zero)
        return F.linear(x, unpacked(packed, scale_and_zero).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """(..., out) -> (..., in)."""
        return grads[0] @ unpacked(*ctx.saved_tensors).to(grads[0].dtype), None, None


class QLoRALinear(LoRALinear):
    """LoRA over a frozen matrix of 4 bits (Dettmers et al. 2023, 2305.14314), in the groups of `zoo.nn.blocks.int4`.

    Weights of a plain layer that are loaded become 4 bits. `weight` is the matrix as the layer computes with it. The
    4-bit steps are evenly spaced, where the paper has quantiles of a normal distribution.

    Args:
        base: a layer whose width is a multiple of `GROUP`.
        rank: see `LoRALinear`.
        alpha: see `LoRALinear`.
        rslora: see `LoRALinear`.
        dora: see `LoRALinear`.
    """

    packed: Tensor  # two columns a byte, uint8 (out, in / 2)
    scale_and_zero: Tensor  # bfloat16 (in / GROUP, out, 2)

    def keep(self, weight: Tensor) -> None:
        """Store the frozen matrix in 4 bits."""
        packed, scale_and_zero = packed_int4(weight.detach())
        self.register_buffer("packed", packed)
        self.register_buffer("scale_and_zero", scale_and_zero)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The matrix as float32 (out, in)."""
        return unpacked(self.packed, self.scale_and_zero)

    def frozen(self, input: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in) -> (..., out) by the frozen matrix."""
        if torch.is_grad_enabled() and input.requires_grad:
            out: Tensor = FrozenInt4.apply(input, self.packed, self.scale_and_zero)
        else:
            out = F.linear(input, self.weight.to(input.dtype))
        return out if bias is None else out + bias

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if (weight := state_dict.pop(f"{prefix}weight", None)) is not None:
            packed, scale_and_zero = packed_int4(weight)
            state_dict |= {f"{prefix}packed": packed, f"{prefix}scale_and_zero": scale_and_zero}
        super()._load_from_state_dict(state_dict, prefix, *args)


def packed_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as pairs of 4-bit steps (out, in / 2), uint8; and scales and zero points."""
    steps, scale_and_zero = quantized(weight.float())
    return steps[:, ::2] | steps[:, 1::2] << 4, scale_and_zero


def unpacked(packed: Tensor, scale_and_zero: Tensor) -> Tensor:
    """Inverse of `packed_int4`, up to rounding: float32 (out, in)."""
    return dequantized(torch.stack((packed & LEVELS, packed >> 4), -1).flatten(1), scale_and_zero)


def add_adapters(
    network: nn.Module,
    rank: int,
    alpha: float,
    but: nn.Module | None = None,
    *,
    targets: Sequence[str] | None = None,
    rslora: bool = False,
    dora: bool = False,
    int4: bool = False,
) -> None:
    """Freeze a network in place, and add adapters to its linear layers except `but`.

    Args:
        network: the network.
        rank: see `LoRALinear`.
        alpha: see `LoRALinear`.
        but: a layer that stays, if `targets` is None.
        targets: of the layers: whole names, their last parts as in peft, or patterns such as "blocks.0.*". None is all.
        rslora: see `LoRALinear`.
        dora: see `LoRALinear`.
        int4: store the matrices with adapters in 4 bits, if their width is a multiple of `GROUP`.

    Raises:
        ZooError: the network does not have linear layers, a target is not the name of one, or no width fits.
    """
    network.requires_grad_(False)
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    chosen = {n: m for n, m in layers.items() if m is not but}
    if targets is not None:
        unknown = [target for target in targets if not any(matches(name, target) for name in layers)]
        if unknown or not targets:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise ZooError(
                f"model.lora_targets={unknown or list(targets)}: not linear layers of this policy. "
                f"Choose from {known}, or whole names such as {next(iter(layers), 'none')}."
            )
        chosen = {n: m for n, m in layers.items() if any(matches(n, target) for target in targets)}
    if not chosen:
        raise ZooError(
            f"model.lora_rank={rank}: this policy does not have linear layers to adapt. Set model.lora_rank=0."
        )
    fitting = {n for n, m in chosen.items() if int4 and m.in_features % GROUP == 0}
    if int4 and not fitting:
        raise ZooError(
            f"model.lora_4bit=true: no adapted layer has a width that is a multiple of {GROUP}. Leave it out."
        )
    for name, layer in chosen.items():
        made = QLoRALinear if name in fitting else LoRALinear
        _replace(network, name, made(layer, rank, alpha, rslora=rslora, dora=dora))


def matches(name: str, target: str) -> bool:
    """Whether a layer's name is a target: equal to it, ending with its parts, or of its pattern."""
    return name == target or name.endswith(f".{target}") or fnmatchcase(name, target)


def adapters(network: nn.Module) -> set[str]:
    """Names of the parameters that `add_adapters` added."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, LoRALinear)]
    parts = {n: ("down", "up") if m.magnitude is None else ("down", "up", "magnitude") for n, m in layers}
    return {f"{name}.{part}" if name else part for name, own in parts.items() for part in own}


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """State of a model by the names of its layers before `add_adapters`, without adapters."""
    state = dict(model.state_dict())
    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear)]:
        for part in ("down", "up", "magnitude", "packed", "scale_and_zero"):
            state.pop(f"{name}.{part}", None)
        state[f"{name}.weight"] = layer.weight
    return state


def reset_magnitudes(network: nn.Module) -> None:
    """Set DoRA's magnitudes to the norms of the present weights."""
    for module in network.modules():
        if isinstance(module, LoRALinear):
            module.reset_magnitude()


def merge_adapters(network: nn.Module) -> None:
    """Merge every adapter into its base matrix, in place; the network's function stays the same."""
    for name, layer in [(n, m) for n, m in network.named_modules() if isinstance(m, LoRALinear)]:
        _replace(network, name, layer.merged())


def remove_adapters(network: nn.Module) -> nn.Module:
    """Return a copy of a network that has the base matrices and no adapters."""
    network = copy.deepcopy(network)
    for name, layer in [(n, m) for n, m in network.named_modules() if isinstance(m, LoRALinear)]:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(layer.weight, requires_grad=False), layer.bias
        _replace(network, name, plain)
    return network


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """Disable all adapters inside the context."""
    layers = [m for m in network.modules() if isinstance(m, LoRALinear)]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.active = True


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)
