"""Diagonal normal distributions against torch's own and against Monte Carlo."""

import math

import torch
from torch import distributions as D

from zoo.nn.distributions.normal import kl_to_standard, log_normal


def test_log_density_agrees_with_torch():
    z, mean, log_std = torch.randn(3, 7, 4)
    expected = D.Normal(mean, log_std.exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(log_normal(z, mean, log_std), expected)


def test_kl_in_closed_form_agrees_with_monte_carlo():
    mean, log_std = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([-0.5, 0.4, -2.0])
    z = mean + log_std.exp() * torch.randn(100_000, 3)
    ratio = log_normal(z, mean, log_std) - log_normal(z, torch.zeros(3), torch.zeros(3))
    error = float(ratio.std()) / math.sqrt(len(z))
    assert abs(float(kl_to_standard(mean, log_std).sum() - ratio.mean())) < 4 * error
    own = D.kl_divergence(D.Normal(mean, log_std.exp()), D.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard(mean, log_std), own)
