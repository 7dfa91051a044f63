"""The classifier two-sample test: its null, and Gaussians for which the best accuracy is known."""

import math

import pytest
import torch

from zoo.metrics.c2st import FOLDS, MAX_SAMPLES, set_size, standard_error, two_sample_accuracy


def normal_cdf(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


@pytest.mark.parametrize(("n", "m", "dim"), [(1000, 1000, 5), (400, 900, 40)])
def test_equal_distributions_are_not_told_apart(n, m, dim):
    accuracy = two_sample_accuracy(torch.randn(n, dim) * 9 + 4, torch.randn(m, dim) * 9 + 4)
    assert abs(accuracy - 0.5) < 4 * standard_error(min(n, m))


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_shifted_gaussians_are_told_apart_as_well_as_can_be(shift):
    """The best accuracy is Phi(shift / 2), and logistic regression is of the right form to reach it."""
    x, y = torch.randn(2, 3000, 4)
    y[:, 0] += shift
    best = normal_cdf(shift / 2)
    accuracy = two_sample_accuracy(x * 100, y * 100)
    assert accuracy == pytest.approx(best, abs=4 * math.sqrt(best * (1 - best) / 6000) + 0.002)


def test_unequal_numbers_are_balanced():
    """Were they not, saying "the larger one" would be right nine times in ten."""
    accuracy = two_sample_accuracy(torch.randn(200, 3), torch.randn(1800, 3))
    assert abs(accuracy - 0.5) < 4 * standard_error(200)


def test_disjoint_sets_are_told_apart_always_and_the_seed_decides():
    x, y = torch.randn(2, 300, 3)
    assert two_sample_accuracy(x, y + 50) == 1
    assert two_sample_accuracy(x, y, seed=3) == two_sample_accuracy(x, y, seed=3)
    assert len({two_sample_accuracy(x, y, seed=seed) for seed in range(4)}) > 1


def test_at_most_so_many_are_used():
    assert (set_size(10, 7), set_size(10**6, 10**6)) == (7, MAX_SAMPLES)
    x = torch.cat([torch.zeros(MAX_SAMPLES, 2), torch.full((MAX_SAMPLES, 2), 9.0)])  # the first half is inseparable
    assert 0.7 < two_sample_accuracy(x, torch.randn(MAX_SAMPLES, 2)) < 1  # both halves are drawn from, not the first


def test_too_few_vectors():
    with pytest.raises(ValueError, match="n_splits"):
        two_sample_accuracy(torch.randn(FOLDS - 1, 2), torch.randn(50, 2))
