"""Likelihoods of diffusion models: the variational bound, and the density by the probability-flow ODE."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.nn.diffusion.path import Path, Point
from zoo.nn.diffusion.sampler import Denoise, velocity
from zoo.nn.samplers.ode import divergence, solve_ode

MIN_LOG_SNR = -20.0  # of the integral over noise levels
EXACT_DIVERGENCE = 16  # largest number of dimensions whose divergence is computed one by one


def prior_scale(path: Path) -> float:
    """Standard deviation of the prior: that of z at the last time, for data of variance one."""
    last = path.number(path.last)
    return math.hypot(last.a, last.s)


def log_normal_sum(z: Tensor, std: float) -> Tensor:
    """log N(z; 0, std^2) summed over (B, *shape): (B,)."""
    return (-0.5 * (z / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def prior_kl(x: Tensor, path: Path) -> Tensor:
    """KL(q(z_1 | x) || N(0, a^2 + s^2)) in nats, (B,)."""
    last, variance = path.number(path.last), prior_scale(path) ** 2
    ratio = last.s**2 / variance
    return 0.5 * (last.a**2 / variance * x**2 + ratio - 1 - math.log(ratio)).flatten(1).sum(1)


def diffusion_term(x: Tensor, x_hat: Tensor, at: Point, density: Tensor) -> Tensor:
    """One draw of 1/2 int (-dSNR/dt) |x - x_hat|^2 dt in nats, (B,), at times (B,) of this density."""
    slope = 2 * at.wronskian * at.a / at.s**3 / density  # -dSNR/dt / pi
    return 0.5 * slope.to(x.dtype) * (x - x_hat).square().flatten(1).sum(1)


def log_level(x: Tensor, z: Tensor, first: Point, levels: Tensor) -> Tensor:
    """log p(x | z_0) in nats, (B,): the levels (K,) with probabilities proportional to N(z_0; a x_k, s^2)."""
    logits = -0.5 * ((z[..., None] - first.a * levels) / first.s).square()  # (B, *shape, K)
    index = (x[..., None] - levels).abs().argmin(-1, keepdim=True)
    return logits.log_softmax(-1).gather(-1, index).flatten(1).sum(1)


def variational_bound(
    denoise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, path: Path, levels: Tensor, draws: int
) -> Tensor:
    """Lower bound on the log-probability of levels, in nats, (B,) (Kingma et al. 2021, arXiv:2107.00630, section 4).

    Minus the KL of the last noise, the integral over the noise levels, and the levels given the first noise. That is a
    sixth of the distance of two levels. Times are stratified and uniform in the log-SNR.

    Args:
        denoise: z (B, *shape) and times (B,) -> estimates of x and e.
        x: data of variance one on the levels, (B, *shape).
        path: of the denoiser.
        levels: values of the levels (K,), equally spaced.
        draws: times per sample.
    """
    levels = levels.to(x)
    nearest = path.time_of(-2 * ((levels[1] - levels[0]).double() / 6).log())
    first = path.number(nearest.clamp(path.first, path.last).item())
    total = log_level(x, first.a * x + first.s * torch.randn_like(x), first, levels) - prior_kl(x, path)
    high, low = first.log_snr, max(path.number(path.last).log_snr, MIN_LOG_SNR)
    u = (torch.rand(len(x), device=x.device) + torch.arange(draws, device=x.device)[:, None]) / draws  # (draws, B)
    for row in u:
        at = path.at(path.time_of(low + (high - low) * row.double()))
        density = 2 * at.wronskian / (at.a * at.s) / (high - low)  # |dlambda / dt| / (high - low)
        wide = Point(*(c.to(x.dtype) for c in at)).like(x)
        x_hat, _ = denoise(wide.a * x + wide.s * torch.randn_like(x), wide.t.flatten())
        total = total - diffusion_term(x, x_hat, at, density) / draws
    return total


def ode_log_prob(
    denoise: Denoise, x: Tensor, path: Path, first: float, tolerance: float = 1e-5, probe: Tensor | None = None
) -> Tensor:
    """log p(x) in nats, (B,): the change of variables along the probability-flow ODE (Song et al. 2020, equation 39).

    Args:
        denoise: the model.
        x: data of variance one, (B, *shape); it is scaled to the first time without noise.
        path: of the denoiser.
        first: time near the data at which the ODE starts.
        tolerance: of the solver.
        probe: noise of Hutchinson's estimate, the same for the whole solution; None computes the exact divergence.
    """
    begin = path.number(first)
    shape, size = x.shape, x[0].numel()

    def slope(state: Tensor, t: float) -> Tensor:  # (B, D + 1): z, and the integral of the divergence
        at = path.number(t)
        value, div = divergence(lambda z: velocity(*denoise(z, t), at), state[:, :-1].view(shape), probe)
        return torch.cat([value.flatten(1), div[:, None]], dim=1)

    start = torch.cat([(begin.a * x).flatten(1), x.new_zeros(len(x), 1)], dim=1)
    *_, (_, state) = solve_ode(slope, start, first, path.last, tolerance)
    volume = size * math.log(begin.a)  # of scaling x to the first time
    return log_normal_sum(state[:, :-1], prior_scale(path)) + state[:, -1] + volume
