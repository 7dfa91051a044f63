"""Maximum mean discrepancy against a double loop, its expectation in closed form, and its null."""

import math

import numpy as np
import pytest
import torch

from zoo.metrics import pairwise
from zoo.metrics.mmd import kernel_distance, squared_mmd


def double_loop(kernel, x, y):
    def mean(a, b, skip):
        return np.mean([kernel(u, v) for i, u in enumerate(a) for j, v in enumerate(b) if not (skip and i == j)])

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_agrees_with_a_double_loop(monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK_PAIRS", 60)  # blocks of three and four rows
    x, y = torch.randn(17, 6) * 9 + 1, torch.randn(13, 6) * 3

    def kid(u, v):
        u, v = (w * math.sqrt(6) / np.linalg.norm(w) for w in (u, v))
        return (u @ v / 6 + 1) ** 3

    expected = double_loop(kid, x.double().numpy(), y.double().numpy())
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(y, x) == pytest.approx(expected, rel=1e-9)


def test_opposite_directions_in_closed_form():
    """k is 8 for equal, 0 for opposite and 1 for orthogonal vectors, whatever their length."""
    a, b = torch.tensor([[3.0, 0.0]]).repeat(5, 1), torch.tensor([[0.0, 7.0]]).repeat(4, 1)
    assert kernel_distance(a, -a) == pytest.approx(8 + 8 - 0)
    assert kernel_distance(a, b) == pytest.approx(8 + 8 - 2)
    assert kernel_distance(a, 5 * a) == pytest.approx(0, abs=1e-12)


def test_unbiased_and_negative_half_of_the_time_between_equal_laws():
    values = torch.tensor([kernel_distance(torch.randn(20, 12) + 0.5, torch.randn(30, 12) + 0.5) for _ in range(400)])
    assert abs(values.mean()) < 4 * values.std() / 20
    assert 0.2 < (values < 0).float().mean() < 0.8


def test_expectation_between_gaussians_in_closed_form():
    """N(0, I) and N(m, I) under exp(-|a - b|^2 / 2): 2 (1/3)^(d/2) (1 - exp(-|m|^2 / 6))."""
    d, shift = 3, torch.tensor([0.8, 0.0, -0.4])

    def rbf(a, b):
        return torch.exp(-torch.cdist(a, b).square() / 2)

    values = torch.tensor([squared_mmd(rbf, torch.randn(40, d), torch.randn(25, d) + shift) for _ in range(400)])
    expected = 2 * 3 ** (-d / 2) * (1 - math.exp(-float(shift.square().sum()) / 6))
    assert abs(values.mean() - expected) < 4 * values.std() / 20


def test_a_shift_is_seen_and_the_raw_cube_is_meaningless():
    x, y, other = torch.randn(300, 16) + 3, torch.randn(300, 16) + 3, torch.randn(300, 16) + 2
    same, different = kernel_distance(x, y), kernel_distance(x, other)
    assert abs(same) < 0.1 * different
    assert abs(squared_mmd(lambda a, b: (a @ b.T / 16 + 1) ** 3, 30 * x, 30 * y)) > 1000  # why vectors are scaled
