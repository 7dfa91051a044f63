"""A fully connected denoising network, for vectors and small images."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, Depth, PositiveInt
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.noise_embedding import Context, NoiseEmbedding

Dropout = Annotated[float, Interval(ge=0.0, lt=1.0)]

FEW_VALUES = 8  # of a sample, whose network reads waves of each value


class Waves(FixedConstants):
    """Values (B, D) -> values, and sines and cosines of each in octaves, (B, D (1 + 2 n)).

    A network of layers learns slow functions of its inputs first. Waves of the inputs let it learn fast ones, such as
    narrow modes and edges in the plane (Tancik et al. 2020, arXiv:2006.10739). Wavelengths are 8, 4, 2, ...
    """

    frequencies: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi / 4 * 2.0 ** torch.arange(n), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        angles = (x[..., None] * self.frequencies).flatten(1)
        return torch.cat([x, angles.sin(), angles.cos()], dim=1)


class ModulatedBlock(nn.Module):
    """h + (1 + gate) f(norm(h) (1 + scale) + shift), with shift, scale and gate from the condition (adaLN)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, width), (B, width) -> (B, width)."""
        shift, scale, gate = self.modulation(F.silu(condition)).chunk(3, dim=1)
        return h + (1 + gate) * self.layers(self.norm(h) * (1 + scale) + shift)


@register("denoiser", "mlp")
class MLPDenoiser(nn.Module):
    """Noisy data (B, *shape) -> outputs (B, n_out * C, ...), by residual blocks with adaptive layer norm.

    Args:
        shape: of one sample.
        n_out: outputs per value.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; 2 for flow maps.
        context_width: of a text's features, whose mean is used; 0 ignores texts.
        width: units per layer.
        depth: residual blocks of two layers.
        dropout: inside the blocks.
        n_waves: octaves of waves of each value, for samples of at most 8 values; see `Waves`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_out: int,
        n_classes: int,
        n_levels: int = 1,
        context_width: int = 0,
        *,
        width: PositiveInt = 256,
        depth: Depth = 4,
        dropout: Dropout = 0.0,
        n_waves: Count = 6,
    ) -> None:
        super().__init__()
        self.out_shape = (n_out * shape[0], *shape[1:])
        self.embedding = NoiseEmbedding(width, n_classes, n_levels, context_width)
        n_values = math.prod(shape)
        n_waves = n_waves if n_values <= FEW_VALUES else 0
        self.waves: nn.Module = Waves(n_waves) if n_waves else nn.Identity()
        self.stem = nn.Linear(n_values * (1 + 2 * n_waves), width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, math.prod(self.out_shape))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, z: Tensor, noise: Tensor, y: Tensor | None = None, context: Context | None = None) -> Tensor:
        """(B, *shape), noise levels (B,) or (B, n_levels), labels (B,), texts -> (B, n_out * C, ...)."""
        condition = self.embedding(noise, y, context)
        h = self.stem(self.waves(z.flatten(1)))
        for block in self.blocks:
            h = block(h, condition)
        return self.head(F.silu(self.norm(h))).unflatten(1, self.out_shape)
