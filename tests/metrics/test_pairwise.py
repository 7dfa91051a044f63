"""Distances in blocks against numpy's differences."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from zoo.metrics import pairwise


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK_PAIRS", 100)


def test_distances_are_those_of_the_differences():
    x, y = torch.randn(23, 5) + 100, torch.randn(31, 5) + 100
    blocks = list(pairwise.distances(x, y))
    assert [start for start, _ in blocks] == list(range(0, 23, 3))
    expected = np.linalg.norm(x.numpy()[:, None].astype(float) - y.numpy()[None], axis=2)
    np.testing.assert_allclose(torch.cat([block for _, block in blocks]).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dim", [1, 5, pairwise.TREE_DIMS + 1])
def test_nearest(dim, k):
    x, y = torch.randn(23, dim), torch.randn(31, dim)
    distance, index = pairwise.nearest(x, y, k)
    expected = np.linalg.norm(x.numpy()[:, None].astype(float) - y.numpy()[None], axis=2)
    np.testing.assert_array_equal(index.numpy(), expected.argsort(axis=1)[:, k - 1])
    np.testing.assert_allclose(distance.numpy(), np.sort(expected, axis=1)[:, k - 1], rtol=1e-12)


def test_a_tree_is_for_few_dimensions(monkeypatch):
    built = []
    monkeypatch.setattr("scipy.spatial.cKDTree", lambda y: built.append(y.shape[1]) or cKDTree(y))
    for dim in (2, pairwise.TREE_DIMS, pairwise.TREE_DIMS + 1):
        pairwise.nearest(torch.randn(5, dim), torch.randn(9, dim))
    assert built == [2, pairwise.TREE_DIMS]


@pytest.mark.parametrize("dim", [2, 20])
def test_values_that_are_not_finite_have_no_distance(dim):
    x, y = torch.randn(3, dim), torch.randn(9, dim)
    x[1, 0] = torch.nan
    assert pairwise.nearest(x, y)[0].isfinite().tolist() == [True, False, True]
    with pytest.raises(RuntimeError):
        pairwise.nearest(x[:1], y, 10)


@pytest.mark.parametrize("dim", [2, 300])
def test_copies_are_exactly_zero_apart_and_the_next_is_another(dim):
    y = torch.randn(40, dim) * 50 + 1000
    assert pairwise.nearest(y[:9], y)[0].count_nonzero() == 0
    assert pairwise.nearest(y[:9], y, 2)[0].min() > 0.1
    twice = torch.cat([y, y])
    assert pairwise.nearest(twice, twice, 2)[0].count_nonzero() == 0  # the copy is the nearest other


def test_a_block_holds_at_least_one_row():
    assert len(list(pairwise.distances(torch.randn(4, 2), torch.randn(101, 2)))) == 4
