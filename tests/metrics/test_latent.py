"""Diagnoses of latent spaces against closed forms."""

import math

import pytest
import torch
from scipy.integrate import quad

from zoo.metrics.latent import active_units, aggregate_match, kl_per_dim


def test_active_units_are_those_above_the_threshold():
    sign = torch.tensor([1.0, -1.0]).repeat(500)[:, None]
    means = 7 + sign * torch.tensor([0.0, 0.099, 0.101, 3.0])  # variances 0, .0098, .0102, 9
    assert active_units(means) == 2
    assert active_units(torch.full((10, 4), 5.0)) == 0  # a collapsed posterior, wherever it is


def test_kl_per_dimension():
    """std 1 and mean m: m^2 / 2; mean 0 and std s: (s^2 - 1) / 2 - log s; averaged over two data."""
    mean = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    log_std = torch.tensor([0.0, 0.0, math.log(3)]).expand(2, 3)
    expected = torch.tensor([1.0, 0.0, 4 - math.log(3)], dtype=torch.float64)
    torch.testing.assert_close(kl_per_dim(mean, log_std), expected, rtol=1e-6, atol=1e-9)


def test_match_of_two_point_masses():
    """All latents in one place and all of the prior in another, |a - b|^2 = 6 in 3 dimensions: 14 - 2 k(a, b)."""
    a, b = torch.zeros(4, 3), torch.tensor([[1.0, -1.0, 2.0]]).repeat(5, 1)
    k = sum(1 / (1 + 1 / s) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))
    assert aggregate_match(a, b) == pytest.approx(14 - 2 * k)


def test_match_is_unbiased_where_the_prior_is_met():
    values = torch.tensor([aggregate_match(torch.randn(30, 4), torch.randn(20, 4)) for _ in range(300)])
    assert abs(values.mean()) < 4 * values.std() / 300**0.5
    assert 0.2 < (values < 0).float().mean() < 0.8


def test_match_of_a_shifted_normal_in_closed_form():
    """In one dimension, a - b is N(0, 2) or N(m, 2), whose kernel means are integrals on the line."""

    def mean_kernel(shift):
        def integrand(t):
            k = sum(2 * s / (2 * s + t * t) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))
            return k * math.exp(-((t - shift) ** 2) / 4) / math.sqrt(4 * math.pi)

        return quad(integrand, -40, 40, points=[0, shift])[0]

    expected = 2 * (mean_kernel(0) - mean_kernel(1.5))
    values = torch.tensor([aggregate_match(torch.randn(40, 1) + 1.5, torch.randn(30, 1)) for _ in range(300)])
    assert abs(values.mean() - expected) < 4 * values.std() / 300**0.5
    assert expected > 20 * values.std() / 300**0.5  # a test that a wrong constant fails


def test_a_latent_space_that_is_too_narrow_does_not_match():
    z, prior = torch.randn(500, 8), torch.randn(500, 8)
    assert aggregate_match(0.5 * z, prior) > 10 * abs(aggregate_match(z, prior))
