"""Bounds and densities against closed forms."""

import math

import pytest
import torch

from tests.nn.diffusion.gaussian import (
    MEAN,
    PATHS,
    VARIANCE,
    gaussian_denoiser,
    log_gaussian,
    log_mixture,
    mixture_denoiser,
)
from zoo.nn.diffusion.likelihood import log_level, ode_log_prob, prior_kl, prior_scale, variational_bound
from zoo.nn.diffusion.path import Linear, Path, Trigonometric, VPLinear

X = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("path", "bias"), [(Linear(), 1e-4), (Trigonometric(), 1e-4), (VPLinear(), 0.05)])
def test_ode_density_of_a_gaussian_and_a_mixture(path: Path, bias: float) -> None:
    """The rest is the prior's mismatch: at the last time, only VP still has some signal."""
    first = max(path.first, 1e-4)
    found = ode_log_prob(gaussian_denoiser(path), X, path, first, 1e-7)
    torch.testing.assert_close(found, log_gaussian(X), rtol=0, atol=bias)
    found = ode_log_prob(mixture_denoiser(path), 0.5 * X, path, first, 1e-7)
    torch.testing.assert_close(found, log_mixture(0.5 * X), rtol=0, atol=max(bias, 3e-3))


def test_the_bound_with_the_exact_denoiser_is_the_log_density_pointwise() -> None:
    """-log p(x) = prior KL + 1/2 int SNR |x - x_hat|^2 dlambda + first term, for every x and each noise integrated out.

    For a Gaussian, E|x - x_hat|^2 over the noise is a closed form: bias^2 (V = 1 / (SNR V + 1)) plus variance.
    """
    path = Linear()
    log_snr = torch.linspace(-24, 24, 48_001, dtype=torch.float64)
    snr = log_snr.exp()[:, None, None]  # (L, 1, 1)
    shrink = 1 / (1 + snr * VARIANCE)
    squared = (shrink * (X - MEAN)) ** 2 + (1 - shrink) ** 2 / snr  # (L, B, D): E over e of (x - x_hat)^2
    integral = 0.5 * torch.trapezoid((snr * squared).sum(-1), log_snr, dim=0)
    # KL(q(z_1 | x) || p(z_1)) -> 0, and the first term is the entropy of x given z_0: 1/2 log(2 pi e / SNR).
    first = 0.5 * (math.log(2 * math.pi * math.e) - log_snr[-1]) * 2
    torch.testing.assert_close(-(integral + first), log_gaussian(X), rtol=0, atol=1e-4)
    # The same number is 1/2 int rate |e - e_hat|^2: the identity of errors.
    at = path.at(path.time_of(log_snr))
    assert torch.allclose(at.a**2 / at.s**2, snr[:, 0, 0], rtol=1e-6)


def test_prior_kl() -> None:
    for path in PATHS.values():
        last = path.at(torch.tensor(path.last, dtype=torch.float64))
        q = torch.distributions.Normal(last.a * X, last.s)
        p = torch.distributions.Normal(torch.zeros_like(X), prior_scale(path))
        torch.testing.assert_close(prior_kl(X, path), torch.distributions.kl_divergence(q, p).sum(1))


def test_levels_given_the_first_noise_sum_to_one() -> None:
    levels, first = torch.linspace(-1, 1, 4, dtype=torch.float64), Linear().number(0.2)
    z = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = sum(log_level(level.expand(5, 1), z, first, levels).exp() for level in levels)
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64))
    near = first.a * levels[2].expand(5, 1)
    assert (
        log_level(levels[2].expand(5, 1), near, first, levels) > log_level(levels[1].expand(5, 1), near, first, levels)
    ).all()


@pytest.mark.parametrize("path", [Linear(), VPLinear(), Trigonometric()], ids=lambda path: path.registered_name)
def test_the_bound_of_levels_is_exact_for_the_exact_denoiser(path: Path) -> None:
    """For a known distribution of levels, the mean of many draws is the log-probability; of a worse denoiser, less."""
    levels = torch.linspace(-1.5, 1.5, 4, dtype=torch.float64)
    log_p = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log()

    def denoise(z: torch.Tensor, t: torch.Tensor, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        at = path.at(t).like(z)
        logits = log_p - 0.5 * ((z[..., None] - at.a[..., None] * levels) / at.s[..., None]).square()
        x = (logits.softmax(-1) * levels).sum(-1) + noise
        return x, (z - at.a * x) / at.s

    torch.manual_seed(0)
    given = [level.expand(4000, 1) for level in levels]
    found = torch.stack([variational_bound(denoise, x, path, levels, 16).mean() for x in given])
    torch.testing.assert_close(found, log_p, rtol=0, atol=0.05)
    worse = torch.stack([variational_bound(lambda z, t: denoise(z, t, 0.2), x, path, levels, 16).mean() for x in given])
    assert (log_p.exp() * worse).sum() < (log_p.exp() * found).sum() - 0.1
