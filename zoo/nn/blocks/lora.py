"""LoRA (Hu et al. 2021, 2106.09685): a frozen matrix W becomes W + (alpha / rank) up down."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError


class LoRALinear(nn.Linear):
    """Linear layer with frozen weights under their old names and a trainable low-rank correction.

    Args:
        base: the layer; its weight and bias are shared, and frozen.
        rank: rank of the correction.
        alpha: the correction is scaled by alpha / rank, so that one learning rate suits every rank.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)  # Linear.__init__ would draw unused weights
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight.requires_grad_(False), base.bias
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.scale, self.active = alpha / rank, True
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # initially the correction is zero
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        plain = F.linear(input, self.weight, self.bias)
        if not self.active:
            return plain
        return plain + self.scale * F.linear(F.linear(input, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return an equivalent plain layer."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.weight + self.scale * self.up @ self.down)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone())
        return layer


def add_adapters(network: nn.Module, rank: int, alpha: float, but: nn.Module | None = None) -> None:
    """Freeze a network in place, and add an adapter to every linear layer except `but`.

    Raises:
        ZooError: the network has no such layer.
    """
    network.requires_grad_(False)
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear) and m is not but]
    if not layers:
        raise ZooError(
            f"model.lora_rank={rank}: this policy does not have linear layers to adapt. Set model.lora_rank=0."
        )
    for name, layer in layers:
        _replace(network, name, LoRALinear(layer, rank, alpha))


def adapters(network: nn.Module) -> set[str]:
    """Names of the parameters that `add_adapters` added."""
    layers = [n for n, m in network.named_modules() if isinstance(m, LoRALinear)]
    return {f"{name}.{part}" for name in layers for part in ("down", "up")}


def merge_adapters(network: nn.Module) -> None:
    """Merge every adapter into its base matrix, in place; the network's function stays the same."""
    for name, layer in [(n, m) for n, m in network.named_modules() if isinstance(m, LoRALinear)]:
        _replace(network, name, layer.merged())


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
