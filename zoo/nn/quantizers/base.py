"""Interface of quantisers."""

from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.core.signature import Component
from zoo.core.spaces import Codes
from zoo.nn.distributions.likelihoods import at_least_float32


class Quantized(NamedTuple):
    """Vectors replaced by codes.

    Args:
        z: the codes' vectors (B, D, *grid); the gradient passes straight through to the input.
        codes: their indices, int64 (B, *grid), or (B, *grid, depth) where several codes add up to one vector; see
            `Quantizer.index_shape`.
        loss: scalar to add to the objective, summed over a sample and averaged over the batch.
    """

    z: Tensor
    codes: Tensor
    loss: Tensor


class Quantizer(nn.Module):
    """Base class: replaces each of the vectors of length `dim` on a grid by an entry of a finite codebook.

    A subclass is registered as `f(*, settings)`, sets the attributes, and writes `quantize` and `vectors`.
    """

    dim: int  # D, of the vectors
    n_codes: int  # K
    depth: int = 1  # codes for one vector

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, D) in at least single precision -> codes' vectors (N, D), indices (N,) or (N, depth), and loss.

        The loss is summed over vectors. The gradient of the vectors is set by `forward`.
        """
        raise NotImplementedError

    def vectors(self, index: Tensor) -> Tensor:
        """Indices (N,) or (N, depth) -> codes' vectors (N, D)."""
        raise NotImplementedError

    def prepare(self, z: Tensor) -> Tensor:
        """Vectors (N, D) -> the vectors that are quantised, such as those of length 1; the default changes nothing."""
        return z

    def forward(self, z: Tensor) -> Quantized:
        """Quantise vectors (B, D, *grid), in at least single precision."""
        with torch.autocast(z.device.type, enabled=False):
            flat = self.prepare(at_least_float32(z).movedim(1, -1).flatten(0, -2))  # (N, D)
            code, index, loss = self.quantize(flat)
            code = code.detach() + (flat - flat.detach())  # straight-through (Bengio et al. 2013, arXiv:1308.3432)
        grid = (len(z), *z.shape[2:])
        return Quantized(code.unflatten(0, grid).movedim(-1, 1), index.unflatten(0, grid), loss / len(z))

    def lookup(self, index: Tensor) -> Tensor:
        """Indices (B, *grid), or (B, *grid, depth) -> codes' vectors (B, D, *grid)."""
        last = 1 if self.depth > 1 else 0
        grid = index.shape[: index.ndim - last]
        return self.vectors(index.reshape(-1, *index.shape[index.ndim - last :])).unflatten(0, grid).movedim(-1, 1)

    def set_grid(self, grid: tuple[int, ...]) -> None:
        """Prepare for vectors on a grid, before the training; the default needs nothing."""

    def index_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the indices of one sample."""
        return grid if self.depth == 1 else (*grid, self.depth)

    def index_space(self, grid: tuple[int, ...]) -> Codes:
        """The space of the indices of one sample."""
        return Codes(self.index_shape(grid), self.n_codes)

    def by_codebook(self, index: Tensor) -> list[Tensor]:
        """Indices (B, *index_shape) as those of each codebook, each (N,)."""
        return list(index.reshape(-1, self.depth).unbind(1))


QuantizerChoice = Annotated[str | dict[str, Any], Component("quantizer")]
