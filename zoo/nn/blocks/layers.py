"""Small pieces that the image and vector networks share."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from zoo.core.errors import ZooError

Activation = Literal["relu", "leaky_relu", "silu", "gelu", "tanh"]
Norm = Literal["none", "batch", "group", "layer"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),  # the slope of DCGAN
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def channels_last(network: nn.Module) -> nn.Module:
    """Lay the kernels of convolutions out with their channels last, which is how processors and GPUs run them fastest.

    Feature maps follow their kernels. Those that are computed anew at every step, as by spectral normalisation, stay as
    they are: their matrices would have to be copied each time.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not is_parametrized(module):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return network


def norm2d(kind: str, channels: int) -> nn.Module:
    """Normalisation of feature maps (B, C, H, W)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind in ("group", "layer"):  # one group is layer norm over (C, H, W)
        groups = 1 if kind == "layer" else math.gcd(channels, max(channels // 8, 1))
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


def norm1d(kind: str, features: int) -> nn.Module:
    """Normalisation of features (B, D)."""
    if kind == "batch":
        return nn.BatchNorm1d(features)
    return nn.LayerNorm(features) if kind in ("group", "layer") else nn.Identity()


def maybe_spectral_norm(module: nn.Module, on: bool) -> nn.Module:
    """The module, if asked with its weight over its largest singular value (Miyato et al., 1802.05957)."""
    return spectral_norm(module) if on else module


def resolutions(height: int, width: int, smallest: int = 4) -> list[tuple[int, int]]:
    """Resolutions from full size down by halves, rounded up, until the shorter side is at most `smallest`.

    28x28 gives [(28, 28), (14, 14), (7, 7), (4, 4)]: any size works, square or not.
    """
    sizes = [(height, width)]
    while min(sizes[-1]) > smallest:
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def image_shape(network: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W), or a refusal of data that is not an image."""
    if len(shape) != 3:
        size = "x".join(map(str, shape))
        raise ZooError(
            f"network {network} needs images (C, H, W), but a sample here is a vector of {size}: choose mlp "
            f"instead, for instance model/generator=mlp model/discriminator=mlp."
        )
    channels, height, width = shape
    return channels, height, width
