"""Distances in blocks against numpy's differences."""

import numpy as np
import pytest
import torch

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
def test_nearest(k):
    x, y = torch.randn(23, 5), torch.randn(31, 5)
    distance, index = pairwise.nearest(x, y, k)
    expected = np.linalg.norm(x.numpy()[:, None].astype(float) - y.numpy()[None], axis=2)
    np.testing.assert_array_equal(index.numpy(), expected.argsort(axis=1)[:, k - 1])
    np.testing.assert_allclose(distance.numpy(), np.sort(expected, axis=1)[:, k - 1], rtol=1e-12)


def test_copies_are_exactly_zero_apart_and_the_next_is_another():
    y = torch.randn(40, 300) * 50 + 1000
    assert pairwise.nearest(y[:9], y)[0].count_nonzero() == 0
    assert pairwise.nearest(y[:9], y, 2)[0].min() > 1
    twice = torch.cat([y, y])
    assert pairwise.nearest(twice, twice, 2)[0].count_nonzero() == 0  # the copy is the nearest other


def test_a_block_holds_at_least_one_row():
    assert len(list(pairwise.distances(torch.randn(4, 2), torch.randn(101, 2)))) == 4
