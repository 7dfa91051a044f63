"""Monotone functions of one variable, whose parameters a network predicts: z = f(x; params) for each value alone.

Parameters have one more dimension than x, the last. Zeros give the identity.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.distributions.likelihoods import at_least_float32, soft_clamp

LOG_SCALE_BOUND = 3.0  # of one affine map; without a bound, scales grow until they overflow
MIN_BIN = 1e-3  # share of the interval
MIN_SLOPE = 1e-3  # at a knot


class Univariate:
    """Base class.

    Attributes:
        n_params: parameters per value.
    """

    n_params: int

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x (...) and parameters (..., n_params) -> z and log dz/dx, both (...)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, params: Tensor) -> Tensor:
        """z (...) -> x (...)."""
        raise NotImplementedError


class Affine(Univariate):
    """z = (x - m) exp(s), with s in (-3, 3). As m is in units of x, a network predicts it as well for large scales."""

    n_params = 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """See `Univariate.forward`."""
        mean, raw = at_least_float32(params).unbind(-1)
        log_scale = soft_clamp(raw, LOG_SCALE_BOUND)
        return (x - mean) * log_scale.exp(), log_scale

    def inverse(self, z: Tensor, params: Tensor) -> Tensor:
        """See `Univariate.inverse`."""
        mean, raw = at_least_float32(params).unbind(-1)
        return mean + z * (-soft_clamp(raw, LOG_SCALE_BOUND)).exp()


class RationalQuadratic(Univariate):
    """Rational-quadratic spline on [-bound, bound], the identity outside (Durkan et al. 2019, arXiv:1906.04032).

    Args:
        bins: K; 3 K - 1 parameters: widths, heights, and slopes at the inner knots.
        bound: of the interval.
    """

    def __init__(self, bins: int, bound: float) -> None:
        self.bins, self.bound, self.n_params = bins, bound, 3 * bins - 1
        self.raw_one = math.log(math.expm1(1 - MIN_SLOPE))  # gives the slope one

    def knots(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions x and y of the knots and the slopes there, each (..., K + 1), from parameters (..., 3 K - 1)."""
        widths, heights, slopes = at_least_float32(params).split([self.bins, self.bins, self.bins - 1], -1)
        slopes = F.pad(MIN_SLOPE + F.softplus(slopes + self.raw_one), (1, 1), value=1.0)
        return self._positions(widths), self._positions(heights), slopes

    def _positions(self, raw: Tensor) -> Tensor:
        share = MIN_BIN + (1 - MIN_BIN * self.bins) * raw.softmax(-1)
        inner = self.bound * (2 * share[..., :-1].cumsum(-1) - 1)
        ends = inner.new_tensor(self.bound).expand(*raw.shape[:-1], 1)
        return torch.cat([-ends, inner, ends], -1)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """See `Univariate.forward`."""
        return spline(x, *self.knots(params))

    def inverse(self, z: Tensor, params: Tensor) -> Tensor:
        """See `Univariate.inverse`."""
        return spline_inverse(z, *self.knots(params))


def spline(x: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Rational-quadratic interpolation (arXiv:1906.04032, equations 4 and 5); the identity outside the knots.

    Args:
        x: values (...).
        knots_x: increasing positions (..., K + 1).
        knots_y: increasing values there, with the ends of `knots_x`.
        slopes: derivatives there; one at the ends.

    Returns:
        Values and log-derivatives, both (...).
    """
    inside = (x > knots_x[..., 0]) & (x < knots_x[..., -1])
    clamped = torch.where(inside, x, (knots_x[..., 0] + knots_x[..., -1]) / 2)
    x0, w, y0, h, d0, d1 = _bin(clamped, knots_x, knots_x, knots_y, slopes)
    u, s = (clamped - x0) / w, h / w
    v = u * (1 - u)
    denominator = s + (d0 + d1 - 2 * s) * v
    y = y0 + h * (s * u.square() + d0 * v) / denominator
    slope = s.square() * (d1 * u.square() + 2 * s * v + d0 * (1 - u).square()) / denominator.square()
    return torch.where(inside, y, x), torch.where(inside, slope.log(), 0.0)


def spline_inverse(y: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> Tensor:
    """Inverse of `spline` (equations 6 to 8), by the root of the quadratic that does not cancel."""
    inside = (y > knots_y[..., 0]) & (y < knots_y[..., -1])
    clamped = torch.where(inside, y, (knots_y[..., 0] + knots_y[..., -1]) / 2)
    x0, w, y0, h, d0, d1 = _bin(clamped, knots_y, knots_x, knots_y, slopes)
    s, rise = h / w, clamped - y0
    bend = rise * (d0 + d1 - 2 * s)
    a, b, c = h * (s - d0) + bend, h * d0 - bend, -s * rise
    u = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
    return torch.where(inside, x0 + u * w, y)


def _bin(value: Tensor, edges: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> tuple[Tensor, ...]:
    """Left end and size of the bin of each value (...) in x, then in y, and the slopes at its two ends."""
    index = (value[..., None] >= edges[..., 1:-1]).sum(-1, keepdim=True)  # (..., 1)
    (x0, x1), (y0, y1), (d0, d1) = (
        (k.gather(-1, index)[..., 0], k.gather(-1, index + 1)[..., 0]) for k in (knots_x, knots_y, slopes)
    )
    return x0, x1 - x0, y0, y1 - y0, d0, d1


def spline_or_affine(kind: str, bins: int, bound: float) -> Univariate:
    """An affine map, or a spline with so many bins on [-bound, bound]."""
    return RationalQuadratic(bins, bound) if kind == "spline" else Affine()
