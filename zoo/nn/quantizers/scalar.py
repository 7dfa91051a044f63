"""Quantisers without a learned codebook: each coordinate of a vector is rounded to one of a few values."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, Positive
from zoo.nn.quantizers.base import Quantizer

MAX_CODES = 2**30
GROUP = 8  # bits whose joint distribution is enumerated


def place_values(levels: list[int]) -> list[int]:
    """Weight of each digit of a number whose digits have so many values; the first is the lowest."""
    return [math.prod(levels[:place]) for place in range(len(levels))]


@register("quantizer", "fsq")
class FiniteScalarQuantizer(Quantizer):
    """Finite scalar quantisation: round bounded coordinates (Mentzer et al. 2023, arXiv:2309.15505).

    A coordinate with L levels is mapped to an interval of L values by tanh, and rounded. The codes are the grid of all
    combinations. There are no codebook and no loss.

    Args:
        levels: of each coordinate. Their product is the number of codes, and their number the length of a vector.

    Raises:
        ConfigError: too many codes.
    """

    def __init__(self, *, levels: Annotated[tuple[int, ...], Ge(2)] = (8, 5, 5, 5)) -> None:
        super().__init__()
        self.levels, self.dim, self.n_codes = list(levels), len(levels), math.prod(levels)
        if not levels or self.n_codes > MAX_CODES:
            raise ConfigError(f"levels={levels}: {self.n_codes:,} codes. Choose fewer levels, at most {MAX_CODES:,}.")

    def bound(self, z: Tensor) -> Tensor:
        """Coordinates (N, D) -> coordinates in units of a level; rounding gives exactly L values."""
        levels = torch.tensor(self.levels, device=z.device, dtype=z.dtype)
        half = (levels - 1) * 1.001 / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0).to(z.dtype)  # an even number of values is not symmetric
        return (z + (offset / half).atanh()).tanh() * half - offset

    def prepare(self, z: Tensor) -> Tensor:
        """Bounded coordinates (N, D), about in [-1, 1]."""
        return self.bound(z) / self.half_width(z)

    def half_width(self, like: Tensor) -> Tensor:
        """Levels on one side of zero (D,)."""
        return torch.tensor([n // 2 for n in self.levels], device=like.device, dtype=like.dtype)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Quantizer`."""
        half = self.half_width(z)
        digits = (z.detach() * half).round()
        weights = torch.tensor(place_values(self.levels), device=z.device)
        index = ((digits + half).long() * weights).sum(1)
        return digits / half, index, z.new_zeros(())

    def vectors(self, index: Tensor) -> Tensor:
        """Indices (N,) -> codes (N, D)."""
        weights = torch.tensor(place_values(self.levels), device=index.device)
        digits = index[:, None] // weights % torch.tensor(self.levels, device=index.device)
        half = self.half_width(torch.empty((), device=index.device))
        return (digits - half) / half


@register("quantizer", "lfq")
class LookupFreeQuantizer(Quantizer):
    """Lookup-free quantisation: the sign of each coordinate is one bit (Yu et al. 2023, arXiv:2310.05737).

    The loss is the entropy of a vector's soft assignment minus that of the mean assignment (equation 5). So assignments
    become sure, and all codes are used. A soft assignment has the probability softmax(-|z - c|^2 / temperature). It is
    a product over bits. The entropy of the mean is added up over groups of 8 bits, an upper bound of the joint one.

    Args:
        bits: length of a vector; there are 2^bits codes.
        sphere: vectors and codes have length 1: binary spherical quantisation (Zhao et al. 2024, arXiv:2406.07548).
        commitment: weight of the squared distance of vectors from their codes.
        entropy: weight of the entropy loss, in nats per vector.
        diversity: weight of the entropy of the mean, relative to that of a vector.
        temperature: of the soft assignment.
    """

    def __init__(
        self,
        *,
        bits: Annotated[int, Interval(ge=1, le=30)] = 10,
        sphere: bool = False,
        commitment: NonNegative = 0.25,
        entropy: NonNegative = 0.1,
        diversity: NonNegative = 1.0,
        temperature: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.n_codes, self.sphere = bits, 2**bits, sphere
        self.size = bits**-0.5 if sphere else 1.0  # absolute value of each coordinate of a code
        self.commitment, self.entropy, self.diversity = commitment, entropy, diversity
        self.temperature = temperature

    def prepare(self, z: Tensor) -> Tensor:
        """Vectors (N, D), of length 1 if `sphere`."""
        return F.normalize(z, dim=-1) if self.sphere else z

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Quantizer`."""
        positive = z.detach() > 0  # (N, D)
        index = (positive * 2 ** torch.arange(self.dim, device=z.device)).sum(1)
        code = torch.where(positive, self.size, -self.size).to(z.dtype)
        loss = self.commitment * (z - code).square().sum()
        if self.entropy:
            of_one, of_mean = self.entropies(z)
            loss = loss + self.entropy * len(z) * (of_one - self.diversity * of_mean)
        return code, index, loss

    def vectors(self, index: Tensor) -> Tensor:
        """Indices (N,) -> codes (N, D)."""
        bits = index[:, None] >> torch.arange(self.dim, device=index.device) & 1
        return (2 * bits - 1) * self.size

    def entropies(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean entropy of the soft assignments of vectors (N, D), and entropy of their mean by groups of bits; nats."""
        log_p = F.logsigmoid(4 * self.size / self.temperature * z)  # of the positive code, for each bit
        log_q = F.logsigmoid(-4 * self.size / self.temperature * z)
        of_one = -(log_p.exp() * log_p + log_q.exp() * log_q).sum(1).mean()
        of_mean = z.new_zeros(())
        for part in torch.stack([log_q.exp(), log_p.exp()], -1).split(GROUP, 1):  # (N, up to 8, 2)
            joint = z.new_ones(len(z), 1)
            for bit in part.unbind(1):
                joint = (joint[:, :, None] * bit[:, None]).flatten(1)  # (N, 2^bits so far)
            mean = joint.mean(0)
            of_mean = of_mean - torch.special.xlogy(mean, mean).sum()
        return of_one, of_mean
