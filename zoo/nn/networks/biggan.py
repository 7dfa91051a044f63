"""The generator of BigGAN for images of any size."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.gated_attention import attention_at
from zoo.nn.blocks.layers import image_shape, maybe_spectral_norm, resolutions
from zoo.nn.networks.conv import channels_at

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gains and biases are linear in a condition (de Vries et al. 2017, arXiv:1707.00683).

    It begins as plain batch normalisation. `trainer.sync_batchnorm=true` takes the statistics over all devices.
    """

    def __init__(self, channels: int, n_condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(n_condition, 2 * channels, bias=False)
        nn.init.zeros_(self.affine.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W), (B, n_condition) -> (B, C, H, W)."""
        gain, bias = self.affine(condition)[:, :, None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + gain) + bias


class ConditionalBlock(nn.Module):
    """Residual block of the paper's figure 15a: x resized to `size`, plus two convolutions of normalised maps."""

    def __init__(self, n_in: int, n_out: int, n_condition: int, size: tuple[int, int], spectral_norm: bool) -> None:
        super().__init__()
        self.size = size
        self.norm1, self.norm2 = ConditionalBatchNorm(n_in, n_condition), ConditionalBatchNorm(n_out, n_condition)
        self.conv1 = maybe_spectral_norm(orthogonal(nn.Conv2d(n_in, n_out, 3, padding=1)), spectral_norm)
        self.conv2 = maybe_spectral_norm(orthogonal(nn.Conv2d(n_out, n_out, 3, padding=1)), spectral_norm)
        self.skip = maybe_spectral_norm(orthogonal(nn.Conv2d(n_in, n_out, 1)), spectral_norm)

    def resize(self, x: Tensor) -> Tensor:
        """To `size`, by the nearest pixel."""
        return x if x.shape[-2:] == self.size else F.interpolate(x, size=self.size)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, n_in, H, W), (B, n_condition) -> (B, n_out, *size)."""
        h = self.conv1(self.resize(F.relu(self.norm1(x, condition))))
        return self.skip(self.resize(x)) + self.conv2(F.relu(self.norm2(h, condition)))


@register("decoder", "biggan")
class BigGANDecoder(nn.Module):
    """Vectors (B, in_dim) -> images (B, C, H, W): residual blocks given a class (Brock et al. 2018, arXiv:1809.11096).

    The first numbers of the input are noise, and the last `n_condition` describe the class. The noise is split: one
    part gives the first feature maps. Each block receives one further part, and the class, through conditional batch
    normalisation (section 3, hierarchical latents). Noise of fewer numbers than parts is not split.

    Args:
        in_dim: size of the input vector.
        shape: (C, H, W).
        n_condition: numbers of the input that describe the class; 0 for none.
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        hierarchical: split the noise; otherwise every block receives all of it, as in BigGAN-deep (appendix B).
        spectral_norm: apply spectral normalisation to convolutions and to the first layer (1802.05957).
        attention_size: attend at resolutions of at most so many pixels per side (SAGAN, 1805.08318); 0 is nowhere.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)
    takes_condition = True

    def __init__(
        self,
        in_dim: int,
        shape: Sequence[int],
        n_condition: int = 0,
        *,
        width: PositiveInt = 32,
        hierarchical: bool = True,
        spectral_norm: bool = True,
        attention_size: Count = 0,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("biggan", shape)
        sizes = resolutions(height, width_px)[::-1]  # smallest first
        widths = [channels_at(level, width) for level in range(len(sizes))][::-1]
        self.noise_dim = in_dim - n_condition
        self.n_parts, self.split_noise = len(sizes) + 1, hierarchical and self.noise_dim > len(sizes)
        parts = self.split(torch.empty(1, self.noise_dim))
        self.first = (widths[0], *sizes[0])
        stem = nn.Linear(parts[0].shape[1], widths[0] * sizes[0][0] * sizes[0][1])
        self.stem = maybe_spectral_norm(orthogonal(stem), spectral_norm)
        blocks: list[nn.Module] = []
        for n_in, n_out, size, part in zip([widths[0], *widths[:-1]], widths, sizes, parts[1:], strict=True):
            blocks.append(ConditionalBlock(n_in, n_out, part.shape[1] + n_condition, size, spectral_norm))
            blocks += attention_at(size, attention_size, n_out, spectral_norm)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = maybe_spectral_norm(orthogonal(nn.Conv2d(widths[-1], channels, 3, padding=1)), spectral_norm)

    def split(self, noise: Tensor) -> list[Tensor]:
        """Noise (B, Z) -> the parts of the first layer and of each block: (B, about Z / n_parts), or (B, Z) each."""
        return list(noise.tensor_split(self.n_parts, dim=1)) if self.split_noise else [noise] * self.n_parts

    def forward(self, v: Tensor) -> Tensor:
        """(B, in_dim) -> (B, C, H, W)."""
        noise, condition = v[:, : self.noise_dim], v[:, self.noise_dim :]
        first, *parts = self.split(noise)
        h = self.stem(first).unflatten(1, self.first)
        rest = iter(parts)
        for block in self.blocks:
            is_residual = isinstance(block, ConditionalBlock)
            h = block(h, torch.cat([next(rest), condition], dim=1)) if is_residual else block(h)
        return self.head(F.relu(self.norm(h)))


def orthogonal(layer: Layer) -> Layer:
    """Begin with orthogonal filters (Saxe et al. 2014), and biases of zero."""
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
