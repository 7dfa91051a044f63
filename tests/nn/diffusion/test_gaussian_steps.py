"""Gaussian steps against the conditional law of jointly normal numbers, and torch's divergence."""

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from zoo.nn.diffusion.gaussian_steps import bound_term, posterior, scales, step_back
from zoo.nn.diffusion.transition import Uniform

STEPS = Uniform(steps=6)
X, Z = torch.tensor([[0.7]]).double(), torch.tensor([[-1.3]]).double()


def shares(*steps):
    """a_t of each step, (1,) each."""
    return (STEPS.kept(torch.tensor([t])) for t in steps)


def conditional(s, t):
    """Mean and standard deviation of z_s given z_t and x, from the covariance of a chain of single steps."""
    (a_s,) = shares(s)
    signal, noise = a_s.sqrt(), 1 - a_s
    slope, spread = torch.ones(1).double(), torch.zeros(1).double()  # z_t = slope z_s + N(0, spread)
    for i in range(s, t):
        before, after = shares(i, i + 1)
        slope, spread = slope * (after / before).sqrt(), spread * after / before + 1 - after / before
    gain = slope * noise / (slope.square() * noise + spread)
    mean = signal * X + gain * (Z - slope * signal * X)
    return mean, (noise - gain * slope * noise).sqrt()


@pytest.mark.parametrize(("s", "t"), list(itertools.combinations(range(7), 2)))
def test_the_posterior_is_that_of_a_chain_of_single_steps(s, t):
    mean, std = posterior(Z, X, *shares(s, t))
    want = conditional(s, t)
    assert torch.allclose(mean, want[0])
    assert torch.allclose(std, want[1], atol=1e-7)


def test_the_law_of_a_step_is_that_of_many():
    """q(z_s | z_t, x) over q(z_t | x) is q(z_s | x); with the posterior of another step, it is not."""
    for s, t in ((1, 2), (2, 5), (3, 6)):
        a_s, a_t = shares(s, t)
        signal, noise = scales(a_t, X)
        low, _ = posterior(signal * X, X, a_s, a_t)
        high, std = posterior(signal * X + noise, X, a_s, a_t)
        want = scales(a_s, X)
        assert torch.allclose(low, want[0] * X)
        assert torch.allclose(((high - low).square() + std.square()).sqrt(), want[1])
        (other,) = shares(s - 1)
        assert not torch.allclose(posterior(signal * X, X, other, a_t)[0], want[0] * X, atol=0.01)


@pytest.mark.parametrize(("s", "t"), list(itertools.combinations(range(1, 7), 2)))
def test_the_term_is_the_divergence_of_the_step_from_the_posterior(s, t):
    estimate = torch.tensor([[0.2]]).double()
    true, model = posterior(Z, X, *shares(s, t)), step_back(Z, estimate, *shares(s, t))
    want = kl_divergence(Normal(*true), Normal(*model))
    found = bound_term(X, estimate, *shares(s, t))
    assert torch.allclose(found, want)
    other = kl_divergence(Normal(*true), Normal(model[0], true[1]))
    assert not torch.allclose(found, other, rtol=0.01), "the variance is the larger one"


def test_a_step_back_is_exact_for_standard_normal_data():
    """The estimate is sqrt(a_t) z_t, and z_s and z_t are standard normal with correlation sqrt(a_t / a_s)."""
    for s, t in itertools.combinations(range(1, 7), 2):
        a_s, a_t = shares(s, t)
        mean, std = step_back(Z, a_t.sqrt() * Z, a_s, a_t)
        assert torch.allclose(mean, (a_t / a_s).sqrt() * Z)
        assert torch.allclose(std.square(), 1 - a_t / a_s)
