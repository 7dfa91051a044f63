"""Mode coverage by exact enumeration, for the ideal sampler, and for collapse."""

import math

import pytest
import torch

from zoo.data.vector.toy2d import Grid25
from zoo.metrics.modes import class_histogram_kl, points_on_modes


def repeated(*counts):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def test_classes_by_hand():
    """Fair shares .5, .3, .2 and 0 of 100 samples; a fifth of .3 is 6, of .2 is 4."""
    scores = class_histogram_kl(repeated(91, 5, 4), repeated(5, 3, 2), 4)
    kl = 0.91 * math.log(0.91 / 0.5) + 0.05 * math.log(0.05 / 0.3) + 0.04 * math.log(0.04 / 0.2)
    assert scores == pytest.approx({"seen": 3, "strict": 2, "kl": kl, "largest_deviation": 0.41})


def test_classes_of_a_perfect_a_collapsed_and_a_wrong_sampler():
    real = repeated(*[30] * 10)
    assert class_histogram_kl(real, real.repeat(2), 10) == {"seen": 10, "strict": 10, "kl": 0, "largest_deviation": 0}
    collapsed = class_histogram_kl(torch.full((50,), 7), real, 10)
    assert collapsed == pytest.approx({"seen": 1, "strict": 1, "kl": math.log(10), "largest_deviation": 0.9})
    assert class_histogram_kl(torch.tensor([0, 1, 2]), torch.tensor([0, 1]), 3)["kl"] == math.inf


def test_chance_alone_costs_what_the_docstring_says():
    draws = [class_histogram_kl(*torch.randint(10, (2, 500)), 10)["kl"] for _ in range(200)]
    assert sum(draws) / 200 == pytest.approx(9 / 2 * 2 / 500, rel=0.1)


def test_points_by_hand():
    """Two centers 10 apart and sigma 1: ten points on one, one on the other, one 3.5 sigma away."""
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    x = torch.tensor([[0.0, 2.9]] * 10 + [[13.0, 0.0]] + [[10.0, 3.5]])
    kl = 10 / 11 * math.log(20 / 11) + 1 / 11 * math.log(2 / 11)
    expected = {"modes": 2, "strict": 1, "high_quality": 11 / 12, "kl": kl}
    assert points_on_modes(x, centers, 1.0) == pytest.approx(expected)  # strict is 1.1 points of 11


def test_points_of_the_ideal_sampler():
    grid = Grid25()
    y = torch.arange(25).repeat(1000)
    scores = points_on_modes(grid.draw(y, torch.Generator().manual_seed(0)), grid.centers, grid.sigma)
    ideal = 1 - math.exp(-4.5)
    assert scores["modes"] == scores["strict"] == 25
    assert scores["high_quality"] == pytest.approx(ideal, abs=4 * math.sqrt(ideal * (1 - ideal) / 25_000))
    assert scores["kl"] < 1e-4


def test_points_of_bad_samplers():
    grid = Grid25()
    collapsed = points_on_modes(grid.centers[3:4].repeat(100, 1), grid.centers, grid.sigma)
    assert collapsed == pytest.approx({"modes": 1, "strict": 1, "high_quality": 1, "kl": math.log(25)})
    # What gives "modes" its bad name: stray points touch all 25 while nearly all of the mass is on one.
    stray = points_on_modes(torch.cat([grid.centers, grid.centers[:1].repeat(975, 1)]), grid.centers, grid.sigma)
    assert (stray["modes"], stray["strict"]) == (25, 1)
    nowhere = points_on_modes(torch.full((10, 2), 99.0), grid.centers, grid.sigma)
    assert (nowhere["modes"], nowhere["strict"], nowhere["high_quality"]) == (0, 0, 0)
    assert math.isnan(nowhere["kl"])
