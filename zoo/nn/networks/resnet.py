"""Residual networks for any image size: pre-activation blocks as in SNGAN (Miyato et al. 2018, 1802.05957)."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.gated_attention import attention_at
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, image_shape, maybe_spectral_norm, norm2d, resolutions
from zoo.nn.networks.conv import channels_at


class Block(nn.Module):
    """x + f(x) with `n_out` feature maps and, if `size` is given, resampled to it (half, rounded up, or larger).

    The last convolution starts at zero, so a deep stack starts as the identity (Zhang et al. 2019, 1901.09321). With
    spectral normalisation it does not: a zero matrix cannot be normalised.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Activation,
        norm: Norm,
        spectral_norm: bool,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.act = ACTIVATIONS[activation]()
        self.norm1, self.norm2 = norm2d(norm, n_in), norm2d(norm, n_out)
        self.conv1 = maybe_spectral_norm(nn.Conv2d(n_in, n_out, 3, padding=1), spectral_norm)
        last = nn.Conv2d(n_out, n_out, 3, padding=1)
        if not spectral_norm:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.conv2 = maybe_spectral_norm(last, spectral_norm)
        self.skip = maybe_spectral_norm(nn.Conv2d(n_in, n_out, 1), spectral_norm) if n_in != n_out else nn.Identity()

    def resize(self, x: Tensor) -> Tensor:
        """Resample to `size`: nearest neighbour upwards; means of 2x2 windows downwards, cropped at odd edges."""
        if self.size is None or x.shape[-2:] == self.size:
            return x
        if self.size[0] * self.size[1] > x.shape[-2] * x.shape[-1]:
            return F.interpolate(x, size=self.size)
        # Windows of adaptive pooling overlap on odd sizes, and its GPU gradient is not deterministic.
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, *size)."""
        up = self.size is not None and self.size[0] * self.size[1] > x.shape[-2] * x.shape[-1]
        h = self.act(self.norm1(x))
        h = self.conv1(self.resize(h) if up else h)
        h = self.conv2(self.act(self.norm2(h)))
        if up:
            return self.skip(self.resize(x)) + h
        return self.resize(self.skip(x) + h)  # resizing is linear: once for the sum of both branches


@register("encoder", "resnet")
class ResNetEncoder(nn.Module):
    """Images (B, C, H, W) -> features (B, out_dim): one residual block per resolution, halving to 4x4.

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
        channels, height, width_px = image_shape("resnet", shape)
        sizes = resolutions(height, width_px)
        widths = [channels_at(level, width) for level in range(len(sizes))]
        self.stem = maybe_spectral_norm(nn.Conv2d(channels, width, 3, padding=1), spectral_norm)
        blocks: list[nn.Module] = []
        for n_in, n_out, now, size in zip([width, *widths[:-1]], widths, sizes, [*sizes[1:], sizes[-1]], strict=True):
            blocks += attention_at(now, attention_size, n_in, spectral_norm)
            blocks.append(Block(n_in, n_out, activation, norm, spectral_norm, size))
        self.blocks = nn.Sequential(*blocks)
        self.act = ACTIVATIONS[activation]()
        self.head = maybe_spectral_norm(nn.Linear(widths[-1] * sizes[-1][0] * sizes[-1][1], out_dim), spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.head(self.act(self.blocks(self.stem(x))).flatten(1))


@register("decoder", "resnet")
class ResNetDecoder(nn.Module):
    """Vectors (B, in_dim) -> images (B, C, H, W): one residual block per resolution, doubling from 4x4.

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
        channels, height, width_px = image_shape("resnet", shape)
        sizes = resolutions(height, width_px)[::-1]  # smallest first
        widths = [channels_at(level, width) for level in range(len(sizes))][::-1]
        self.first = (widths[0], *sizes[0])
        self.stem = maybe_spectral_norm(nn.Linear(in_dim, widths[0] * sizes[0][0] * sizes[0][1]), spectral_norm)
        blocks: list[nn.Module] = []
        for n_in, n_out, size in zip([widths[0], *widths[:-1]], widths, sizes, strict=True):
            blocks.append(Block(n_in, n_out, activation, norm, spectral_norm, size))
            blocks += attention_at(size, attention_size, n_out, spectral_norm)
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm2d(norm, widths[-1])
        self.act = ACTIVATIONS[activation]()
        self.head = maybe_spectral_norm(nn.Conv2d(widths[-1], channels, 3, padding=1), spectral_norm)

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_dim) -> (B, C, H, W)."""
        h = self.blocks(self.stem(z).unflatten(1, self.first))
        return self.head(self.act(self.norm(h)))
