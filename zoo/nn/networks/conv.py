"""DCGAN-style convolutional networks (Radford et al. 2015, 1511.06434) for any image size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.gated_attention import attention_at
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, image_shape, maybe_spectral_norm, norm2d, resolutions


def channels_at(level: int, width: int) -> int:
    """Number of feature maps after `level` halvings: doubled with each, at most eightfold."""
    return width * 2 ** min(level, 3)


@register("encoder", "conv")
class ConvEncoder(nn.Module):
    """Images (B, C, H, W) -> features (B, out_dim): full-resolution stem, then strided 3x3 convolutions down to 4x4.

    Args:
        shape: (C, H, W).
        out_dim: number of features.
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        activation: activation function.
        norm: normalisation of feature maps.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
        attention_size: attend at resolutions of at most so many pixels per side (SAGAN, 1805.08318); 0 is nowhere.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        out_dim: int,
        *,
        width: PositiveInt = 32,
        activation: Activation = "leaky_relu",
        norm: Norm = "none",
        spectral_norm: bool = False,
        attention_size: Count = 0,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("conv", shape)
        sizes = resolutions(height, width_px)
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = [
            maybe_spectral_norm(nn.Conv2d(channels, width, 3, padding=1), spectral_norm),
            act(),
            *attention_at(sizes[0], attention_size, width, spectral_norm),
        ]
        for level in range(1, len(sizes)):
            n_in, n_out = channels_at(level - 1, width), channels_at(level, width)
            layers += [
                maybe_spectral_norm(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), spectral_norm),  # size rounds up
                norm2d(norm, n_out),
                act(),
                *attention_at(sizes[level], attention_size, n_out, spectral_norm),
            ]
        self.body = nn.Sequential(*layers)
        (h, w), top = sizes[-1], channels_at(len(sizes) - 1, width)
        self.head = maybe_spectral_norm(nn.Linear(top * h * w, out_dim), spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.head(self.body(x).flatten(1))


@register("decoder", "conv")
class ConvDecoder(nn.Module):
    """Vectors (B, in_dim) -> images (B, C, H, W): nearest-neighbour upsampling and 3x3 convolutions.

    Resizing to the exact next resolution supports every size and avoids checkerboard artefacts (Odena et al. 2016).

    Args:
        in_dim: size of the input vector.
        shape: (C, H, W).
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        activation: activation function.
        norm: normalisation of feature maps.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
        attention_size: attend at resolutions of at most so many pixels per side (SAGAN, 1805.08318); 0 is nowhere.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        in_dim: int,
        shape: Sequence[int],
        *,
        width: PositiveInt = 32,
        activation: Activation = "relu",
        norm: Norm = "none",
        spectral_norm: bool = False,
        attention_size: Count = 0,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("conv", shape)
        self.sizes = resolutions(height, width_px)[::-1]  # smallest first
        widths = [channels_at(level, width) for level in range(len(self.sizes))][::-1]
        self.act = ACTIVATIONS[activation]()
        self.stem = maybe_spectral_norm(
            nn.Linear(in_dim, widths[0] * self.sizes[0][0] * self.sizes[0][1]), spectral_norm
        )
        self.stem_norm = norm2d(norm, widths[0])
        self.convs = nn.ModuleList(
            maybe_spectral_norm(nn.Conv2d(n_in, n_out, 3, padding=1), spectral_norm) for n_in, n_out in pairwise(widths)
        )
        self.norms = nn.ModuleList(norm2d(norm, n) for n in widths[1:])
        self.attention = nn.ModuleList(
            nn.Sequential(*attention_at(size, attention_size, n, spectral_norm))
            for size, n in zip(self.sizes, widths, strict=True)
        )
        self.head = maybe_spectral_norm(nn.Conv2d(widths[-1], channels, 3, padding=1), spectral_norm)

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_dim) -> (B, C, H, W)."""
        h = self.act(self.stem_norm(self.stem(z).unflatten(1, (-1, *self.sizes[0]))))  # (B, W0, h0, w0)
        h = self.attention[0](h)
        for size, conv, norm, attention in zip(self.sizes[1:], self.convs, self.norms, self.attention[1:], strict=True):
            h = attention(self.act(norm(conv(F.interpolate(h, size=size)))))
        return self.head(h)
