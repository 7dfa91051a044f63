"""Von Mises-Fisher distributions against Bessel functions and scipy's own."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch.nn import functional as F

from zoo.nn.distributions.von_mises_fisher import (
    kl_to_uniform,
    log_integral_and_mean,
    log_normaliser,
    log_sphere_area,
    log_von_mises_fisher,
    sample_von_mises_fisher,
)

KAPPAS = (1e-3, 0.1, 1.0, 7.0, 50.0, 400.0, 3e3)
DIMS = (2, 3, 4, 8, 33)


def exact_log_normaliser(kappa: float, dim: int) -> float:
    order = dim / 2 - 1
    return (dim / 2) * math.log(2 * math.pi) + math.log(special.ive(order, kappa)) + kappa - order * math.log(kappa)


@pytest.mark.parametrize("dim", DIMS)
def test_normaliser_and_mean_cosine_are_those_of_bessel_functions(dim: int) -> None:
    kappa = torch.tensor(KAPPAS, dtype=torch.float64, requires_grad=True)
    found = log_normaliser(kappa, dim)
    expected = torch.tensor([exact_log_normaliser(k, dim) for k in KAPPAS], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    wrong = torch.tensor([exact_log_normaliser(k, dim + 1) for k in KAPPAS], dtype=torch.float64)
    assert ((found - wrong).abs() > 1e-3).all()  # negative control: another dimension
    ratio = [special.ive(dim / 2, k) / special.ive(dim / 2 - 1, k) for k in KAPPAS]
    expected = torch.tensor(ratio, dtype=torch.float64)
    torch.testing.assert_close(log_integral_and_mean(kappa, dim)[1], expected, rtol=1e-8, atol=1e-10)
    (gradient,) = torch.autograd.grad(found.sum(), kappa)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)  # d log normaliser / d kappa is the mean


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_density_is_scipys(dim: int) -> None:
    direction, z = F.normalize(torch.randn(2, 5, dim, dtype=torch.float64), dim=-1)
    for kappa in (0.3, 12.0):
        found = log_von_mises_fisher(z, direction, torch.full((5,), kappa, dtype=torch.float64))
        expected = [
            stats.vonmises_fisher(m, kappa).logpdf(p) for m, p in zip(direction.numpy(), z.numpy(), strict=True)
        ]
        np.testing.assert_allclose(found.numpy(), np.ravel(expected), rtol=1e-9, atol=1e-9)


def test_kl_to_the_uniform_distribution() -> None:
    """Minus the entropy by scipy, plus the logarithm of the area; zero without concentration."""
    for dim in (2, 3, 6):
        expected = log_sphere_area(dim) - stats.vonmises_fisher(np.eye(dim)[0], 9.0).entropy()
        found = kl_to_uniform(torch.tensor([9.0, 1e-6], dtype=torch.float64), dim)
        assert found.tolist() == pytest.approx([expected, 0.0], abs=1e-9)
    assert math.exp(log_sphere_area(3)) == pytest.approx(4 * math.pi)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 0.5), (3, 20.0), (8, 3.0)])
def test_draws_have_the_density_and_their_gradient_is_that_of_the_mean(dim: int, kappa: float) -> None:
    torch.manual_seed(0)
    n = 20_000
    direction = F.normalize(torch.randn(dim, dtype=torch.float64), dim=0).expand(n, -1)
    given = torch.full((n,), kappa, dtype=torch.float64, requires_grad=True)
    z = sample_von_mises_fisher(direction, given)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(n, dtype=torch.float64))
    cosine = (z * direction).sum(1)

    def weight(t: float) -> float:
        return math.exp(kappa * (t - 1)) * (1 - t * t) ** ((dim - 3) / 2)

    knots = np.linspace(-1, 1, 401)
    pieces = [integrate.quad(weight, a, b)[0] for a, b in itertools.pairwise(knots)]
    below = np.concatenate([[0], np.cumsum(pieces)]) / np.sum(pieces)
    values = np.sort(cosine.detach().numpy())
    gap = np.abs(np.interp(values, knots, below) - (np.arange(n) + 0.5) / n).max()
    assert gap < 1.95 / math.sqrt(n) + 2e-3  # Kolmogorov's distance at 0.001, and the interpolation between knots
    wrong = np.abs(np.interp(values, knots, below**1.1) - (np.arange(n) + 0.5) / n).max()
    assert wrong > 1.95 / math.sqrt(n) + 2e-3  # negative control

    across = z.detach() - cosine.detach()[:, None] * direction
    assert (across.mean(0).abs() < 4.5 * across.std(0) / math.sqrt(n) + 1e-9).all()  # around the direction: symmetric

    (slope,) = torch.autograd.grad(cosine.sum(), given)
    mean = log_integral_and_mean(given, dim)[1]
    (expected,) = torch.autograd.grad(mean.sum(), given)
    assert abs(float(slope.mean() - expected[0])) < 4 * float(slope.std()) / math.sqrt(n)
    (square,) = torch.autograd.grad(
        (sample_von_mises_fisher(direction, given) * direction).sum(1).square().sum(), given
    )
    second = torch.tensor([kappa - 1e-4, kappa + 1e-4], dtype=torch.float64)
    moments = 1 - (dim - 1) * log_integral_and_mean(second, dim)[1] / second  # E cos^2 = 1 - (D - 1) A / kappa
    assert abs(float(square.mean() - (moments[1] - moments[0]) / 2e-4)) < 4 * float(square.std()) / math.sqrt(n)
    assert float(slope.std()) / math.sqrt(n) < 0.1 * float(expected[0])  # so that the test has power
