"""Weightings of the loss over noise levels.

In the form of Kingma & Gao (2023, arXiv:2303.00848) every loss is 1/2 E_t[w(lambda) rate |e_hat - e|^2] with
rate = (-dlambda/dt) / pi(t), where times have the density pi. A weighting gives the factor on |e_hat - e|^2, whatever
the network predicts: `loss_factor` converts it to the units of the output.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Positive
from zoo.nn.diffusion.path import Point
from zoo.nn.diffusion.target import Target, determinant


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """Base class of weightings."""

    registered_name: ClassVar[str]

    def noise_factor(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        """The factor on |e_hat - e|^2, for log-SNR and rate = (-dlambda/dt) / pi(t), each (B,)."""
        raise NotImplementedError

    def loss_factor(self, target: Target, point: Point, density: Tensor) -> Tensor:
        """The factor on |output - target|^2, (B,), where times have this density."""
        rate = 2 * point.wronskian / (point.a * point.s) / density
        return self.noise_factor(point.log_snr, rate) * (point.a / determinant(target, point)).square()


@register("weighting", "from_target")
@dataclass(frozen=True, kw_only=True)
class FromTarget(Weighting):
    """The plain squared error of a target: of what the network predicts, or of another one.

    Args:
        of: the target; None is what the network predicts. JiT predicts x with the loss of the velocity.
        s_min: s is at least this in the factor, for targets that divide by it.
    """

    of: Target | None = None
    s_min: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.05

    def loss_factor(self, target: Target, point: Point, density: Tensor) -> Tensor:
        """det_of / det_target, squared: both determinants measure the same error."""
        if self.of is None or self.of == target:
            return torch.ones_like(density)
        clipped = point._replace(s=point.s.clamp(min=self.s_min))
        return (determinant(self.of, point) / determinant(target, clipped)).square()


@register("weighting", "elbo")
@dataclass(frozen=True, kw_only=True)
class ELBO(Weighting):
    """w = 1: minus the evidence lower bound, up to a constant (Kingma et al. 2021, arXiv:2107.00630)."""

    def noise_factor(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        """See `Weighting`."""
        return rate / 2


@register("weighting", "simple")
@dataclass(frozen=True, kw_only=True)
class Simple(Weighting):
    """The plain squared error of the noise (Ho et al. 2020, arXiv:2006.11239, eq. 14)."""

    def noise_factor(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        """See `Weighting`."""
        return torch.ones_like(log_snr)


@register("weighting", "min_snr")
@dataclass(frozen=True, kw_only=True)
class MinSNR(Weighting):
    """The error of the noise times min(1, gamma / SNR) (Hang et al. 2023, arXiv:2303.09556).

    Args:
        gamma: SNR above which the error of x has constant weight.
    """

    gamma: Positive = 5.0

    def noise_factor(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        """See `Weighting`."""
        return (self.gamma * torch.exp(-log_snr)).clamp(max=1)


@register("weighting", "sigmoid")
@dataclass(frozen=True, kw_only=True)
class Sigmoid(Weighting):
    """w = sigmoid(bias - lambda) (Kingma & Gao 2023, arXiv:2303.00848).

    Args:
        bias: log-SNR at which the weight is one half.
    """

    bias: float = 2.0

    def noise_factor(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        """See `Weighting`."""
        return torch.sigmoid(self.bias - log_snr) * rate / 2


@register("weighting", "edm")
@dataclass(frozen=True, kw_only=True)
class EDMWeighting(Weighting):
    """w = N(lambda; mean, std^2) (e^-lambda + 1): EDM's loss with its noise levels (Karras et al. 2022, table 1).

    Args:
        mean: of the log-SNR; the paper's ln s ~ N(-1.2, 1.2^2) for data of deviation 1/2 is 1.0 for deviation 1.
        std: of the log-SNR.
    """

    mean: float = 1.0
    std: Positive = 2.4

    def noise_factor(self, log_snr: Tensor, rate: Tensor) -> Tensor:
        """See `Weighting`."""
        density = torch.exp(-(((log_snr - self.mean) / self.std) ** 2) / 2) / (self.std * math.sqrt(2 * math.pi))
        return density * (torch.exp(-log_snr) + 1) * rate / 2
