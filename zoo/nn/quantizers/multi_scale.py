"""Multi-scale residual quantisation: codes on grids from coarse to fine, whose upsampled vectors add up."""

import math
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Codes
from zoo.nn.blocks.grid_resize import GridResize
from zoo.nn.distributions.likelihoods import at_least_float32
from zoo.nn.quantizers.base import Quantized, Quantizer
from zoo.nn.quantizers.vq import Decay, VectorQuantizer


@register("quantizer", "multi_scale")
class MultiScaleQuantizer(Quantizer):
    """Residual quantisation on grids of growing size (Tian et al. 2024, arXiv:2404.02905, algorithms 1 and 2).

    At each scale, what the coarser scales leave open is averaged to that grid, and each place gets the nearest code.
    The codes' vectors are enlarged to the whole grid, smoothed by a convolution, and added. The codes of a sample are
    one row: all scales from coarse to fine, each in raster order.

    Unlike in the paper, each scale has its own codebook, which follows the means of its vectors, and the convolutions
    start as the identity. The loss is |x - sg(f)|^2 for each partial sum f, times `commitment`, and |sg(x) - f|^2,
    which trains the convolutions.

    Args:
        dim: length of a vector.
        n_codes: size of each codebook.
        scales: sides of the grids, relative to the last one, which is the whole grid; empty doubles from 1x1.
        decay: see `vq`.
        commitment: weight of the squared distance of vectors from each partial sum.
        revive_below: see `vq`.

    Raises:
        ConfigError: scales that become smaller, or a grid of another dimension than two.
    """

    def __init__(
        self,
        *,
        dim: PositiveInt = 16,
        n_codes: PositiveInt = 128,
        scales: Annotated[tuple[int, ...], Gt(0)] = (),
        decay: Decay = 0.99,
        commitment: NonNegative = 0.25,
        revive_below: NonNegative = 0.1,
    ) -> None:
        super().__init__()
        if any(fine < coarse for coarse, fine in pairwise(scales)):
            raise ConfigError(f"scales={list(scales)}: become smaller. Give them from coarse to fine.")
        self.dim, self.n_codes, self.scales, self.commitment = dim, n_codes, tuple(scales), commitment
        self.given = {"dim": dim, "n_codes": n_codes, "decay": decay, "revive_below": revive_below}
        self.grids: list[tuple[int, int]] = []

    def set_grid(self, grid: tuple[int, ...]) -> None:
        """Build the codebooks and the convolutions of all scales."""
        if len(grid) != 2:
            raise ConfigError(
                "model.quantizer=multi_scale: needs a grid of two dimensions. Choose model.quantizer=rvq."
            )
        height, width = grid
        self.grids = sizes_of_scales(height, width, self.scales)
        n = len(self.grids)
        self.codebooks = nn.ModuleList(VectorQuantizer(**self.given) for _ in range(n))  # type: ignore[arg-type]
        self.smooth = nn.ModuleList(nn.Conv2d(self.dim, self.dim, 3, padding=1) for _ in range(n))
        for layer in self.smooth:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.down = nn.ModuleList(GridResize((height, width), size, "area") for size in self.grids)
        self.up = nn.ModuleList(GridResize(size, (height, width), "bicubic") for size in self.grids)

    def enlarged(self, scale: int, code: Tensor) -> Tensor:
        """Codes' vectors of a scale (B, D, h, w) -> the part of the sum (B, D, H, W)."""
        large = self.up[scale](code)
        part: Tensor = large + self.smooth[scale](large)
        return part

    def forward(self, z: Tensor) -> Quantized:
        """Quantise vectors (B, D, H, W), in at least single precision."""
        with torch.autocast(z.device.type, enabled=False):
            x = at_least_float32(z)
            total, loss, rows = torch.zeros_like(x), x.new_zeros(()), []
            for scale, size in enumerate(self.grids):
                rest = self.down[scale]((x - total).detach()).movedim(1, -1)  # (B, h, w, D)
                code, index, _ = self.codebooks[scale].quantize(rest.flatten(0, 2))  # type: ignore[operator]
                total = total + self.enlarged(scale, code.detach().unflatten(0, rest.shape[:3]).movedim(-1, 1))
                loss = (
                    loss + self.commitment * (x - total.detach()).square().sum() + (total - x.detach()).square().sum()
                )
                rows.append(index.view(len(z), math.prod(size)))
            total = total.detach() + (x - x.detach())  # straight-through
        return Quantized(total, torch.cat(rows, 1), loss / len(z))

    def parts(self, index: Tensor) -> list[Tensor]:
        """Rows of indices (B, T) -> the part of the sum of each scale, (B, D, H, W) each."""
        rows = index.split([math.prod(size) for size in self.grids], 1)
        found = []
        for scale, (row, size) in enumerate(zip(rows, self.grids, strict=True)):
            code = self.codebooks[scale].vectors(row.flatten())  # type: ignore[operator]
            found.append(self.enlarged(scale, code.view(len(index), *size, self.dim).movedim(-1, 1)))
        return found

    def lookup(self, index: Tensor) -> Tensor:
        """Rows of indices (B, T) -> vectors (B, D, H, W)."""
        return torch.stack(self.parts(index)).sum(0)

    def index_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """One row."""
        return (sum(map(math.prod, sizes_of_scales(grid[0], grid[1], self.scales))),)

    def index_space(self, grid: tuple[int, ...]) -> Codes:
        """One row of codes, with the grids of its scales."""
        heights, widths = zip(*sizes_of_scales(grid[0], grid[1], self.scales), strict=True)
        return Codes(self.index_shape(grid), self.n_codes, heights, widths)

    def by_codebook(self, index: Tensor) -> list[Tensor]:
        """Indices of each scale, each (N,)."""
        return [row.flatten() for row in index.split([math.prod(size) for size in self.grids], 1)]


def sizes_of_scales(height: int, width: int, scales: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width of each scale of a grid; without scales, halves of it, rounded up, to 1x1 are below it."""
    if not scales:
        sizes = [(height, width)]
        while sizes[0] != (1, 1):
            sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
        return sizes
    last = scales[-1]
    return [(max(round(height * s / last), 1), max(round(width * s / last), 1)) for s in scales]
