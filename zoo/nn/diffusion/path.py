"""Paths from data to noise: z = a(t) x + s(t) e.

Here e ~ N(0, I), t = 0 is data and t = 1 is noise. The log-SNR is lambda = log(a^2 / s^2). A path gives a, s and their
derivatives. A network sees lambda only, so that it can be sampled on another path.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Positive


class Point(NamedTuple):
    """A path at times t: tensors of the shape of t, or numbers for samplers."""

    t: Any
    a: Any  # signal
    s: Any  # noise
    da: Any  # da/dt
    ds: Any  # ds/dt

    @property
    def log_snr(self) -> Any:
        """lambda = 2 log(a / s); infinite where one of them is zero."""
        if isinstance(self.a, Tensor):
            return 2 * (self.a.log() - self.s.log())
        return 2 * math.log(self.a / self.s) if self.a and self.s else math.inf if self.a else -math.inf

    @property
    def wronskian(self) -> Any:
        """a s' - s a' > 0, equal to -(a s / 2) dlambda/dt."""
        return self.a * self.ds - self.s * self.da

    def like(self, x: Tensor) -> "Point":
        """The same with trailing dimensions, so that (B,) broadcasts over x (B, *shape)."""
        return Point(*(c.reshape(c.shape + (1,) * (x.ndim - c.ndim)) for c in self))


@dataclass(frozen=True)
class Path:
    """Base class of paths. Subclasses write `at` and `time_of`."""

    registered_name: ClassVar[str]
    first: ClassVar[float] = 0.0  # times that training and sampling use
    last: ClassVar[float] = 1.0

    def at(self, t: Tensor) -> Point:
        """The coefficients at times t in [first, last]."""
        raise NotImplementedError

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The time at which the log-SNR has these values."""
        raise NotImplementedError

    def number(self, t: float) -> Point:
        """The coefficients at one time, as numbers."""
        return Point(*(c.item() for c in self.at(torch.tensor(t, dtype=torch.float64, device="cpu"))))

    def mix(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z = a x + s e at times t (B,), for x and e (B, *shape)."""
        point = self.at(t).like(x)
        return point.a * x + point.s * noise


@register("path", "linear")
@dataclass(frozen=True)
class Linear(Path):
    """a = 1 - t, s = t: flow matching (Lipman et al. 2022, arXiv:2210.02747), rectified flow (arXiv:2209.03003)."""

    def at(self, t: Tensor) -> Point:
        """See `Path.at`."""
        one = torch.ones_like(t)
        return Point(t, 1 - t, t, -one, one)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """See `Path.time_of`."""
        return torch.sigmoid(-log_snr / 2)


@register("path", "trigonometric")
@dataclass(frozen=True)
class Trigonometric(Path):
    """a = cos(pi t / 2), s = sin(pi t / 2): variance-preserving (Salimans & Ho 2022, arXiv:2202.00512)."""

    def at(self, t: Tensor) -> Point:
        """See `Path.at`."""
        angle = t * (math.pi / 2)
        a, s = angle.cos(), angle.sin()
        return Point(t, a, s, -s * (math.pi / 2), a * (math.pi / 2))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """See `Path.time_of`."""
        return torch.atan(torch.exp(-log_snr / 2)) * (2 / math.pi)


@register("path", "vp_cosine")
@dataclass(frozen=True)
class VPCosine(Path):
    """a = cos((t + c) / (1 + c) pi / 2) / cos(c / (1 + c) pi / 2) (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17).

    The last time is before a = 0, where predicting the noise is undefined.

    Args:
        offset: c; it keeps the noise of the first times from being too small.
    """

    first: ClassVar[float] = 1e-4
    last: ClassVar[float] = 0.999
    offset: Positive = 0.008

    def at(self, t: Tensor) -> Point:
        """See `Path.at`."""
        slope = math.pi / 2 / (1 + self.offset)
        start = math.cos(self.offset * slope)
        angle = (t + self.offset) * slope
        a, da = angle.cos() / start, -angle.sin() * (slope / start)
        # 1 - a^2 without cancellation: cos^2 u - cos^2 v = sin(v - u) sin(v + u).
        s = (torch.sin(t * slope) * torch.sin(t * slope + 2 * self.offset * slope)).sqrt() / start
        return Point(t, a, s, da, -a * da / s)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """See `Path.time_of`."""
        slope = math.pi / 2 / (1 + self.offset)
        a = torch.sigmoid(log_snr).sqrt()
        return torch.acos(a * math.cos(self.offset * slope)) / slope - self.offset


@register("path", "vp_linear")
@dataclass(frozen=True)
class VPLinear(Path):
    """Variance-preserving with a linear beta: log a = -(b1 - b0) t^2 / 4 - b0 t / 2.

    The continuous form of DDPM's schedule (Ho et al. 2020, arXiv:2006.11239; Song et al. 2020, arXiv:2011.13456).

    Args:
        beta_min: b0.
        beta_max: b1.
    """

    first: ClassVar[float] = 1e-4
    beta_min: Positive = 0.1
    beta_max: Positive = 20.0

    def at(self, t: Tensor) -> Point:
        """See `Path.at`."""
        exponent = (self.beta_max - self.beta_min) * t**2 / 2 + self.beta_min * t  # -2 log a
        a, s = torch.exp(-exponent / 2), (-torch.expm1(-exponent)).sqrt()
        da = -a * ((self.beta_max - self.beta_min) * t + self.beta_min) / 2
        return Point(t, a, s, da, -a * da / s)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """See `Path.time_of`."""
        exponent = torch.nn.functional.softplus(-log_snr)  # -2 log a
        d = self.beta_max - self.beta_min
        return 2 * exponent / ((self.beta_min**2 + 2 * d * exponent).sqrt() + self.beta_min)


@register("path", "ve")
@dataclass(frozen=True)
class VE(Path):
    """Variance-exploding: a = 1, s = s_min (s_max / s_min)^t (Song et al. 2020, arXiv:2011.13456).

    Args:
        sigma_min: s at t = 0, for data of variance one.
        sigma_max: s at t = 1.
    """

    sigma_min: Positive = 0.01
    sigma_max: Positive = 50.0

    def at(self, t: Tensor) -> Point:
        """See `Path.at`."""
        rate = math.log(self.sigma_max / self.sigma_min)
        s = self.sigma_min * torch.exp(rate * t)
        return Point(t, torch.ones_like(t), s, torch.zeros_like(t), rate * s)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """See `Path.time_of`."""
        return (-log_snr / 2 - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@register("path", "edm")
@dataclass(frozen=True)
class EDM(Path):
    """a = 1, s = (s_min^(1/rho) + t (s_max^(1/rho) - s_min^(1/rho)))^rho (Karras et al. 2022, arXiv:2206.00364, eq. 5).

    Uniform times are EDM's sampling grid.

    Args:
        sigma_min: s at t = 0, for data of variance one; the paper's .002 is for a standard deviation of one half.
        sigma_max: s at t = 1.
        rho: larger values take more steps at little noise.
    """

    sigma_min: Positive = 0.004
    sigma_max: Positive = 160.0
    rho: Positive = 7.0

    def at(self, t: Tensor) -> Point:
        """See `Path.at`."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        root = low + t * (high - low)
        ds = self.rho * (high - low) * root ** (self.rho - 1)
        return Point(t, torch.ones_like(t), root**self.rho, torch.zeros_like(t), ds)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """See `Path.time_of`."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (torch.exp(-log_snr / (2 * self.rho)) - low) / (high - low)
