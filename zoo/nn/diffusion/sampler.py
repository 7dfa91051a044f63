"""Samplers: from noise to data by any denoiser, and back.

A denoiser maps z (B, *shape) at a time to estimates (x, e) of the data and the noise. A sampler does not know what the
network predicts, nor of classes or guidance. A step to the path's first time returns the estimate of x: a second-order
step to s = 0 would divide by zero. Times and coefficients are numbers, so that a sampler can be exported.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Fraction, Positive, PositiveInt
from zoo.nn.diffusion.path import Path, Point
from zoo.nn.samplers.ode import solve_ode

Denoise = Callable[..., tuple[Tensor, Tensor]]  # z (B, *shape), time -> x, e (B, *shape); flow maps: also `to=`, a time
Grid = Literal["time", "karras", "log_snr"]
LOG_SNR_LIMIT = 14.0  # of grids in the log-SNR: s / a from 1e-3 to 1e3
RHO = 7.0  # of the Karras grid


def time_grid(path: Path, steps: int, grid: Grid = "time", shift: float = 1.0) -> Tensor:
    """steps + 1 times from the path's last to its first, float64.

    Args:
        path: of the sampler.
        steps: number of intervals.
        grid: uniform in time, in the log-SNR, or in (s / a)^(1 / 7) (Karras et al. 2022, equation 5).
        shift: above 1, more steps at much noise. On the linear path with uniform times it is the factor on s / a of
            every time (Esser et al. 2024, arXiv:2403.03206, equation 23).
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    u = 1 - shift * (1 - u) / (1 + (shift - 1) * (1 - u))
    t = path.last + u * (path.first - path.last)
    ends = path.at(t[[0, -1]]).log_snr.clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)
    if grid == "log_snr":
        t = path.time_of(torch.lerp(ends[0], ends[1], u))
    elif grid == "karras":
        high, low = torch.exp(-ends / (2 * RHO))
        t = path.time_of(-2 * RHO * torch.lerp(high, low, u).log())
    t[0], t[-1] = path.last, path.first
    return t.clamp(path.first, path.last)


def velocity(x: Tensor, e: Tensor, at: Point) -> Tensor:
    """dz/dt of the probability-flow ODE: a' x + s' e."""
    return at.da * x + at.ds * e


@dataclass
class Run:
    """Context of a step, beside its state.

    Args:
        denoise: for further evaluations.
        randn: standard normal numbers (B, *shape).
        last: the point and the estimate of x of the step before; None at first.
        known: an estimate of x that a corrector has made at the next point; it saves an evaluation.
    """

    denoise: Denoise
    randn: Callable[[], Tensor]
    last: tuple[Point, Tensor] | None = None
    known: Tensor | None = None

    def estimate(self, z: Tensor, at: Point) -> tuple[Tensor, Tensor]:
        """Estimates of x and e at a point of the path."""
        if self.known is None:
            return self.denoise(z, at.t)
        x, self.known = self.known, None
        return x, (z - at.a * x) / at.s


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Base class of samplers. Subclasses write `step`.

    Args:
        steps: intervals of the grid.
        grid: spacing of the times; see `time_grid`.
        shift: see `time_grid`.
    """

    registered_name: ClassVar[str]
    reversible: ClassVar[bool] = False  # an ODE solver without memory, that also maps data to noise
    steps: PositiveInt = 32
    grid: Grid = "time"
    shift: Positive = 1.0

    @property
    def exportable(self) -> bool:
        """Whether the number of steps is fixed."""
        return True

    @property
    def stochastic(self) -> bool:
        """Whether every step but the last adds noise."""
        return False

    @property
    def fixed_steps(self) -> bool:
        """Whether `steps` sets the number of steps."""
        return type(self).step is not Sampler.step

    def plan(self, path: Path) -> list[Point]:
        """The points of the path that the sampler visits, from noise to data."""
        return [path.number(t) for t in time_grid(path, self.steps, self.grid, self.shift).tolist()]

    def run(
        self, denoise: Denoise, z: Tensor, path: Path, plan: Sequence[Point], randn: Callable[[], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the state z and the estimate of x (B, *shape) after each step.

        Args:
            denoise: the model.
            z: state at the first point.
            path: of the denoiser.
            plan: points from noise to data, or the other way.
            randn: standard normal numbers (B, *shape).
        """
        run = Run(denoise, randn)
        for at, to in pairwise(plan):
            x, e = run.estimate(z, at)
            z = x if to.t <= path.first else self.step(z, x, e, at, to, run)
            run.last = at, x
            yield z, x

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """State z at one point of the path, with its estimates x and e -> the state at the next point."""
        raise NotImplementedError


@register("sampler", "euler")
@dataclass(frozen=True, kw_only=True)
class Euler(Sampler):
    """Euler's method on the probability-flow ODE, order 1."""

    reversible: ClassVar[bool] = True

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """See `Sampler`."""
        return z + (to.t - at.t) * velocity(x, e, at)


@register("sampler", "heun")
@dataclass(frozen=True, kw_only=True)
class Heun(Sampler):
    """Heun's method, order 2: two evaluations a step (Karras et al. 2022, algorithm 1)."""

    reversible: ClassVar[bool] = True
    steps: PositiveInt = 12

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """See `Sampler`."""
        v, h = velocity(x, e, at), to.t - at.t
        return z + h / 2 * (v + velocity(*run.denoise(z + h * v, to.t), to))


@register("sampler", "ddim")
@dataclass(frozen=True, kw_only=True)
class DDIM(Sampler):
    """DDIM: Euler in s / a for eta = 0 (Song et al. 2020, arXiv:2010.02502, equation 12); DDPM for eta = 1.

    Args:
        eta: share of the noise that a step replaces.
    """

    eta: Fraction = 0.0

    @property
    def stochastic(self) -> bool:
        """For eta above 0."""
        return self.eta > 0

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """See `Sampler`."""
        if not self.eta:
            return to.a * x + to.s * e
        renewed = self.eta * (1 - (at.a * to.s / (to.a * at.s)) ** 2)  # of the noise's variance
        return to.a * x + to.s * (math.sqrt(1 - renewed) * e + math.sqrt(renewed) * run.randn())


@register("sampler", "ddpm")
@dataclass(frozen=True, kw_only=True)
class DDPM(DDIM):
    """Ancestral sampling from the posterior q(z_s | z_t, x) (Ho et al. 2020, arXiv:2006.11239, equation 7)."""

    steps: PositiveInt = 250
    eta: Fraction = 1.0


@register("sampler", "dpmpp_2m")
@dataclass(frozen=True, kw_only=True)
class DPMpp2M(Sampler):
    """DPM-Solver++(2M), order 2 with one evaluation a step (Lu et al. 2022, arXiv:2211.01095, algorithm 2)."""

    steps: PositiveInt = 20

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """See `Sampler`."""
        h = (to.log_snr - at.log_snr) / 2
        return to.s / at.s * z - to.a * math.expm1(-h) * self.extrapolated(x, at, h, run)

    def extrapolated(self, x: Tensor, at: Point, h: float, run: Run) -> Tensor:
        """The estimate of x at the middle of the step, in the log-SNR, from this one and the last."""
        if run.last is None:
            return x
        before, x_before = run.last
        ratio = h / (at.log_snr - before.log_snr)  # this step over twice the last; 0 after a step from a = 0
        return x + ratio * (x - x_before)


@register("sampler", "dpmpp_2m_sde")
@dataclass(frozen=True, kw_only=True)
class DPMpp2MSDE(DPMpp2M):
    """DPM-Solver++(2M) on the reverse SDE (Lu et al. 2022, arXiv:2211.01095, appendix)."""

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """See `Sampler`."""
        h = (to.log_snr - at.log_snr) / 2
        renewed = -math.expm1(-2 * h)
        mean = to.s / at.s * math.exp(-h) * z + to.a * renewed * self.extrapolated(x, at, h, run)
        return mean + to.s * math.sqrt(renewed) * run.randn()


@register("sampler", "unipc")
@dataclass(frozen=True, kw_only=True)
class UniPC(DPMpp2M):
    """UniPC-2: a predictor of order 2, and a corrector of order 3 (Zhao et al. 2023, arXiv:2302.04867, B(h) = e^h - 1).

    The next step uses the corrector's evaluation, so that a step takes one.
    """

    def step(self, z: Tensor, x: Tensor, e: Tensor, at: Point, to: Point, run: Run) -> Tensor:
        """See `Sampler`."""
        predicted = super().step(z, x, e, at, to, run)
        x_next, _ = run.denoise(predicted, to.t)
        run.known = x_next
        h = (to.log_snr - at.log_snr) / 2
        first = math.expm1(-h)
        if run.last is None or math.isinf(run.last[0].log_snr):
            return to.s / at.s * z - to.a * first * (x + x_next) / 2
        # The integral of the quadratic through the last, this and the next estimate, in u = log(a / s).
        before, x_before = run.last
        k = (before.log_snr - at.log_snr) / 2  # negative
        i1 = first + h  # int_0^h e^(u - h) u du
        i2 = h**2 - 2 * i1  # int_0^h e^(u - h) u^2 du
        slope_next, slope_before = (x_next - x) / h, (x_before - x) / k
        curve = (slope_next - slope_before) / (h - k)
        return to.s / at.s * z + to.a * (-first * x + i1 * (slope_next - curve * h) + i2 * curve)


@register("sampler", "adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive(Sampler):
    """Dormand-Prince 5(4) on the probability-flow ODE, with steps chosen by the estimated error.

    Args:
        tolerance: see `solve_ode`; `steps` and `grid` have no effect.
    """

    tolerance: Positive = 1e-3

    @property
    def exportable(self) -> bool:
        """No: the number of steps depends on the data."""
        return False

    def run(
        self, denoise: Denoise, z: Tensor, path: Path, plan: Sequence[Point], randn: Callable[[], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Sampler`."""
        begin, end = plan[0].t, plan[-1].t
        inner = max(end, path.first + 1e-3) if end < begin else end

        def slope(z: Tensor, t: float) -> Tensor:
            return velocity(*denoise(z, t), path.number(t))

        state = z
        for _, state in solve_ode(slope, z, begin, inner, self.tolerance):
            yield state, state
        if end < begin:
            x, _ = denoise(state, inner)
            yield x, x
