"""Distributions of training times.

Times are stratified: a batch of B has one uniform number in each of B equal intervals. The inverse distribution
function maps them to times. The expectation stays the same, and its variance falls.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Positive
from zoo.nn.diffusion.path import Path


def stratified(n: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """n uniform numbers in (0, 1), one in each of n equal intervals: (u + i / n) mod 1 for one uniform u."""
    u = torch.rand((), generator=generator, device=device)
    return ((u + torch.arange(n, device=device) / n) % 1).clamp(1e-6, 1 - 1e-6)


@dataclass(frozen=True, kw_only=True)
class Times:
    """Base class of distributions over a path's times."""

    registered_name: ClassVar[str]

    def draw(self, u: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B,) in (0, 1) -> times (B,), and their density pi(t) (B,)."""
        raise NotImplementedError

    def observe(self, losses: Tensor) -> None:
        """Receive the losses (B,) at the last times drawn; for distributions that are learned."""


@register("times", "uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(Times):
    """Uniform between the path's first and last time."""

    def draw(self, u: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """See `Times`."""
        length = path.last - path.first
        return path.first + length * u, torch.full_like(u, 1 / length)


@register("times", "logit_normal")
@dataclass(frozen=True, kw_only=True)
class LogitNormal(Times):
    """log(t / (1 - t)) is normal (Esser et al. 2024, arXiv:2403.03206).

    Args:
        mean: 0 is symmetric; below, times nearer to the data.
        std: standard deviation.
    """

    mean: float = 0.0
    std: Positive = 1.0

    def draw(self, u: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """See `Times`."""
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        t = torch.sigmoid(self.mean + self.std * normal).clamp(max(path.first, 1e-5), min(path.last, 1 - 1e-5))
        return t, torch.exp(-(normal**2) / 2) / (math.sqrt(2 * math.pi) * self.std * t * (1 - t))


@register("times", "lognormal")
@dataclass(frozen=True, kw_only=True)
class LogNormal(Times):
    """log(s / a) is normal (Karras et al. 2022, arXiv:2206.00364, table 1), within the path's range.

    Args:
        mean: the paper's -1.2 is for data of standard deviation 1/2, and -0.5 for 1.
        std: standard deviation.
    """

    mean: float = -0.5
    std: Positive = 1.2

    def draw(self, u: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """See `Times`."""
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        t = path.time_of(-2 * (self.mean + self.std * normal)).clamp(max(path.first, 1e-5), min(path.last, 1 - 1e-5))
        point = path.at(t)
        slope = point.wronskian / (point.a * point.s)  # d log(s / a) / dt
        return t, slope * torch.exp(-(normal**2) / 2) / (math.sqrt(2 * math.pi) * self.std)


@register("times", "log_snr")
@dataclass(frozen=True, kw_only=True)
class LogSNR(Times):
    """Uniform in the log-SNR: the bound's integrand has an even share of every noise level.

    Args:
        low: smallest log-SNR.
        high: largest log-SNR.
    """

    low: float = -10.0
    high: float = 8.0

    def draw(self, u: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """See `Times`."""
        t = path.time_of(self.high + u * (self.low - self.high)).clamp(max(path.first, 1e-5), min(path.last, 1 - 1e-5))
        point = path.at(t)
        return t, 2 * point.wronskian / (point.a * point.s) / (self.high - self.low)
