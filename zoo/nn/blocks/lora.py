"""LoRA (Hu et al. 2021, 2106.09685), rsLoRA and DoRA: a frozen matrix W becomes W + scale up down."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError


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
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight.requires_grad_(False), base.bias
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.scale, self.active = alpha / (math.sqrt(rank) if rslora else rank), True
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # initially the correction is zero
        self.magnitude = nn.Parameter(base.weight.new_empty(base.out_features)) if dora else None
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.reset_magnitude()

    @torch.no_grad()
    def reset_magnitude(self) -> None:
        """Set the magnitudes to the norms of the rows, so that the layer computes the same as without magnitudes."""
        if self.magnitude is not None:
            self.magnitude.copy_(self._direction().norm(dim=1))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if not self.active:
            return F.linear(input, self.weight, self.bias)
        correction = self.scale * F.linear(F.linear(input, self.down), self.up)  # (..., out)
        if self.magnitude is None:
            return F.linear(input, self.weight, self.bias) + correction
        changed = self._ratio() * (F.linear(input, self.weight) + correction)
        return changed if self.bias is None else changed + self.bias

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


def add_adapters(
    network: nn.Module,
    rank: int,
    alpha: float,
    but: nn.Module | None = None,
    *,
    targets: Sequence[str] | None = None,
    rslora: bool = False,
    dora: bool = False,
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

    Raises:
        ZooError: the network does not have linear layers, or a target is not the name of one.
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
    for name, layer in chosen.items():
        _replace(network, name, LoRALinear(layer, rank, alpha, rslora=rslora, dora=dora))


def matches(name: str, target: str) -> bool:
    """Whether a layer's name is a target: equal to it, ending with its parts, or of its pattern."""
    return name == target or name.endswith(f".{target}") or fnmatchcase(name, target)


def adapters(network: nn.Module) -> set[str]:
    """Names of the parameters that `add_adapters` added."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, LoRALinear)]
    parts = {n: ("down", "up") if m.magnitude is None else ("down", "up", "magnitude") for n, m in layers}
    return {f"{name}.{part}" if name else part for name, own in parts.items() for part in own}


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
        plain.weight, plain.bias = layer.weight, layer.bias
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
