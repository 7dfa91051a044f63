"""Alignment and uniformity against closed forms."""

import math

import pytest
import torch
from scipy.special import ive

from zoo.metrics.alignment_uniformity import alignment, uniformity


def test_alignment_is_that_of_the_angle() -> None:
    """|x - y|^2 = 2 - 2 cos(angle), whatever the lengths."""
    angle = torch.tensor([0.0, 0.3, 1.0, math.pi])
    x = 3 * torch.tensor([[1.0, 0.0]]).expand(4, -1)
    y = 0.5 * torch.stack([angle.cos(), angle.sin()], 1)
    assert float(alignment(x, y)) == pytest.approx(float((2 - 2 * angle.cos()).mean()), abs=1e-6)
    assert float(alignment(x, x)) == pytest.approx(0, abs=1e-6)
    assert float(alignment(x, -x)) == pytest.approx(4, abs=1e-6)


def test_uniformity_of_few_points() -> None:
    """Two opposite points, equal points, and the corners of a simplex, whose squared distances are 2 + 2 / (N - 1)."""
    assert float(uniformity(torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))) == pytest.approx(-8, abs=1e-5)
    assert float(uniformity(torch.ones(3, 4))) == pytest.approx(0, abs=1e-5)
    simplex = torch.eye(5) - 1 / 5
    assert float(uniformity(simplex)) == pytest.approx(-2 * (2 + 2 / 4), abs=1e-5)


def test_uniformity_of_a_circle_is_a_bessel_function() -> None:
    """E exp(-2 (2 - 2 cos)) = exp(-4) I_0(4) for uniform points; points on a half circle are less uniform."""
    n = 2000
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    # Of the n^2 ordered pairs, n are equal: the mean over the others follows.
    whole = ive(0, 4.0)
    wanted = math.log((whole * n - 1) / (n - 1))
    assert float(uniformity(circle)) == pytest.approx(wanted, abs=1e-6)
    half = torch.stack([(angle / 2).cos(), (angle / 2).sin()], 1)
    assert float(uniformity(half)) > wanted + 0.1
