"""Activations, norms and helpers shared by the image and vector networks."""

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
    """Convert convolution kernels to channels-last memory format, the fastest one on CPUs and GPUs.

    Feature maps follow the format of the kernels. Parametrised kernels, such as those with spectral normalisation, stay
    unchanged: they are recomputed at every step and would have to be copied.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not is_parametrized(module):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return network


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018, 1803.08494) that forward-mode derivatives pass through on a GPU too.

    There torch's derivative views its input as contiguous, which feature maps with channels last are not. Its kernel
    makes a contiguous copy anyway, so this costs nothing.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        return super().forward(x.contiguous() if x.device.type == "cuda" else x)


def norm2d(kind: str, channels: int) -> nn.Module:
    """Normalisation of feature maps (B, C, H, W)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind in ("group", "layer"):  # one group is layer norm over (C, H, W)
        groups = 1 if kind == "layer" else math.gcd(channels, max(channels // 8, 1))
        return GroupNorm(groups, channels)
    return nn.Identity()


def norm1d(kind: str, features: int) -> nn.Module:
    """Normalisation of features (B, D)."""
    if kind == "batch":
        return nn.BatchNorm1d(features)
    return nn.LayerNorm(features) if kind in ("group", "layer") else nn.Identity()


def maybe_spectral_norm(module: nn.Module, on: bool) -> nn.Module:
    """The module, with spectral normalisation of its weight (Miyato et al. 2018, 1802.05957) if `on`."""
    return spectral_norm(module) if on else module


def resolutions(height: int, width: int, smallest: int = 4) -> list[tuple[int, int]]:
    """Resolutions from full size down by halves, rounded up, until the shorter side is at most `smallest`.

    28x28 gives [(28, 28), (14, 14), (7, 7), (4, 4)]. Any size works, square or not.
    """
    sizes = [(height, width)]
    while min(sizes[-1]) > smallest:
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def image_shape(network: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Check that a sample is an image, and return (C, H, W).

    Raises:
        ZooError: the data is not an image.
    """
    if len(shape) != 3:
        size = "x".join(map(str, shape))
        raise ZooError(
            f"network={network}: needs images (C, H, W), but a sample here is a vector of {size}. Choose mlp "
            "instead, such as model/generator=mlp, model/encoder=mlp or model/denoiser=mlp."
        )
    channels, height, width = shape
    return channels, height, width
