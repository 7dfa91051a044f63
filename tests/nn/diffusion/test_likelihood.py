"""Bounds and densities against closed forms."""

import math

import numpy
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
from zoo.core.errors import ZooError
from zoo.nn.diffusion.likelihood import log_level, ode_log_prob, prior_kl, prior_scale, variational_bound
from zoo.nn.diffusion.path import Linear, Path, Trigonometric, VPLinear
from zoo.nn.samplers.ode import divergence

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


@pytest.mark.parametrize("path", [Linear(), Trigonometric()], ids=lambda path: path.registered_name)
def test_the_bound_is_the_log_probability_to_ten_digits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`variational_bound` itself, its random numbers replaced by nodes of a quadrature: of four levels, -log 4 each.

    Noise has the trapezoidal rule, and the log-SNR has that of Gauss and Legendre. Below the least log-SNR of -20 are
    e^-20 nats.
    """
    levels = torch.linspace(-1.5, 1.5, 4, dtype=torch.float64)
    e = torch.linspace(-9, 9, 361, dtype=torch.float64)
    of_noise = (-0.5 * e**2).exp() * (e[1] - e[0]) / math.sqrt(2 * math.pi)
    nodes, weights = (torch.tensor(part) for part in numpy.polynomial.legendre.leggauss(96))
    u, of_time = (nodes + 1) / 2, weights / 2
    noise, times = (part.flatten() for part in torch.meshgrid(e, u, indexing="ij"))
    weight = (of_noise[:, None] * of_time).flatten()  # (361 * 96,)

    def denoise(z: torch.Tensor, t: torch.Tensor, error: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        at = path.at(t).like(z)
        gap = (z[..., None] - at.a[..., None] * levels) / at.s[..., None]
        x = ((-0.5 * gap.square()).softmax(-1) * levels).sum(-1) + error
        return x, (z - at.a * x) / at.s

    monkeypatch.setattr(torch, "randn_like", lambda x, **_: noise[:, None])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: times)
    for level in levels:
        x = level.expand(len(weight), 1)
        found = (weight * variational_bound(denoise, x, path, levels, 1)).sum().item()
        assert found == pytest.approx(-math.log(4), abs=1e-8)
        worse = (weight * variational_bound(lambda z, t: denoise(z, t, 1e-4), x, path, levels, 1)).sum().item()
        assert abs(worse + math.log(4)) > 1e-7, "the control"


U = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)  # directions of a correlated Gaussian
SPREADS = torch.tensor([0.3, 1.3], dtype=torch.float64).square()  # its variances along them


def correlated_denoiser(path: Path):
    """The exact denoiser of N(0, U diag(SPREADS) U^T)."""

    def denoise(z: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        at, w = path.number(t), z @ U
        total = at.a**2 * SPREADS + at.s**2
        return (at.a * SPREADS * w / total) @ U.T, (at.s * w / total) @ U.T

    return denoise


def test_the_density_by_the_ode_with_a_probe_is_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a probe v the divergence is v^T J v, whose integral is known. With one that is drawn again, nothing is."""
    path, generator = Linear(), torch.Generator().manual_seed(0)
    probe = torch.randint(2, X.shape, generator=generator).double() * 2 - 1
    first = path.number(1e-3)
    calls: list[float] = []

    def counted(z: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(t)
        return correlated_denoiser(path)(z, t)

    last = path.number(path.last)
    before, after = (p.a**2 * SPREADS + p.s**2 for p in (first, last))
    grown = 0.5 * (after / before).log()  # (2,), the integral of the Jacobian along each direction
    z = first.a * X @ U * (after / before).sqrt()
    log_last = (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(1)
    given = log_last + ((probe @ U).square() * grown).sum(1) + 2 * math.log(first.a)
    exact = log_last + grown.sum() + 2 * math.log(first.a)
    found = ode_log_prob(counted, X, path, 1e-3, 1e-8, probe)
    fixed = len(calls)
    torch.testing.assert_close(found, given, rtol=0, atol=1e-6)
    torch.testing.assert_close(ode_log_prob(counted, X, path, 1e-3, 1e-8), exact, rtol=0, atol=1e-6)
    assert not torch.allclose(found, exact, atol=0.1), "one probe is an estimate"
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)  # of both products with equal probability
    both = torch.stack([ode_log_prob(counted, X, path, 1e-3, 1e-8, s.expand_as(X)) for s in signs]).mean(0)
    torch.testing.assert_close(both, exact, rtol=0, atol=1e-6)

    def redrawn(field, z, _):
        return divergence(field, z, torch.randint(2, z.shape, generator=generator).double() * 2 - 1)

    monkeypatch.setattr("zoo.nn.diffusion.likelihood.divergence", redrawn)
    calls.clear()
    try:
        ode_log_prob(counted, X, path, 1e-3, 1e-8, probe)
    except ZooError as error:
        assert "cannot be solved" in str(error)  # noqa: PT017
    else:
        assert len(calls) > 5 * fixed, "the control"
