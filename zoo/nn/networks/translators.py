"""Networks from images to images, for translation between domains."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, image_shape, norm2d, resolutions
from zoo.nn.networks.conv import channels_at

SMALLEST = 2  # pixels of the shorter side at the lowest resolution


@register("translator", "unet")
class UNetTranslator(nn.Module):
    """Encoder and decoder whose stages of equal size are connected (Isola et al. 2017, arXiv:1611.07004, section 3.2).

    Fine structure that both images share passes through the connections.

    Args:
        n_in: channels of the input.
        shape: (C, H, W), of the output; the input has the same height and width.
        n_halvings: resolutions below the full one, as far as the images reach.
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        dropout: in the decoder's stages while training.
        activation: activation function.
        norm: normalisation of feature maps.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        n_in: int,
        shape: Sequence[int],
        *,
        n_halvings: PositiveInt = 3,
        width: PositiveInt = 32,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
        activation: Activation = "leaky_relu",
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("unet", shape)
        levels = len(resolutions(height, width_px, SMALLEST)[: n_halvings + 1])
        widths = [channels_at(level, width) for level in range(levels)]

        def stage(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), norm2d(norm, n_out), ACTIVATIONS[activation]())

        self.stem = nn.Sequential(nn.Conv2d(n_in, width, 3, padding=1), ACTIVATIONS[activation]())
        self.down = nn.ModuleList(stage(widths[i], widths[i + 1], 2) for i in range(levels - 1))
        self.up = nn.ModuleList(stage(widths[i + 1] + widths[i], widths[i]) for i in reversed(range(levels - 1)))
        self.drop = nn.Dropout(dropout)
        self.head = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, C, H, W)."""
        stored = [self.stem(x)]
        for layer in self.down:
            stored.append(layer(stored[-1]))
        h = stored.pop()
        for layer in self.up:
            skip = stored.pop()
            h = self.drop(layer(torch.cat([F.interpolate(h, size=skip.shape[-2:]), skip], dim=1)))
        return self.head(h)


class PlainResidualBlock(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, channels: int, activation: Activation, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            norm2d(norm, channels),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            norm2d(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.layers(x)


@register("translator", "resnet")
class ResNetTranslator(nn.Module):
    """Two halvings, residual blocks, and back (Johnson et al. 2016; Zhu et al. 2017, arXiv:1703.10593, appendix 7.2).

    Args:
        n_in: channels of the input.
        shape: (C, H, W), of the output; the input has the same height and width.
        n_halvings: resolutions below the full one, as far as the images reach.
        n_blocks: residual blocks at the lowest resolution.
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        activation: activation function.
        norm: normalisation of feature maps.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        n_in: int,
        shape: Sequence[int],
        *,
        n_halvings: Count = 2,
        n_blocks: PositiveInt = 4,
        width: PositiveInt = 32,
        activation: Activation = "relu",
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("resnet", shape)
        self.sizes = resolutions(height, width_px, SMALLEST)[: n_halvings + 1]
        widths = [channels_at(level, width) for level in range(len(self.sizes))]

        def stage(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), norm2d(norm, n_out), ACTIVATIONS[activation]())

        self.stem = stage(n_in, width)
        self.down = nn.Sequential(*(stage(a, b, 2) for a, b in pairwise(widths)))
        self.middle = nn.Sequential(*(PlainResidualBlock(widths[-1], activation, norm) for _ in range(n_blocks)))
        self.up = nn.ModuleList(stage(widths[i + 1], widths[i]) for i in reversed(range(len(widths) - 1)))
        self.head = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, C, H, W)."""
        h = self.middle(self.down(self.stem(x)))
        for layer, size in zip(self.up, reversed(self.sizes[:-1]), strict=True):
            h = layer(F.interpolate(h, size=size))
        return self.head(h)


class BoundedTranslator(nn.Module):
    """A network between images in [-1, 1], whose input is resized to the output and which ends in tanh.

    Args:
        network: (B, n_in, H, W) -> (B, C, H, W).
        size: height and width of the output.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, h, w) -> (B, C, *size)."""
        return self.network(resized(x, self.size)).tanh()


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, h, w) -> (B, C, *size), by the nearest pixel."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="nearest-exact")
