"""Conditions that are left out in training."""

import pytest
import torch

from zoo.data.loader import make_generator
from zoo.models.given_condition import rows_without_condition
from zoo.nn.diffusion.times import stratified


@pytest.mark.parametrize(("n", "share", "count"), [(64, 0.125, 8), (100, 0.1, 10), (7, 0.5, 4), (3, 0.1, 1), (8, 1, 8)])
def test_a_share_of_the_rows_has_no_condition(n: int, share: float, count: int) -> None:
    rows = rows_without_condition(n, share, "cpu")
    assert rows.shape == (n,)
    assert int(rows.sum()) == count


@pytest.mark.parametrize(("n", "share"), [(64, 0.125), (128, 0.1), (50, 0.3), (250, 0.07)])
def test_their_times_are_stratified_too(n: int, share: float) -> None:
    """Each of as many equal intervals of time has one; the first rows of a batch are all in one interval."""
    rows = rows_without_condition(n, share, "cpu")
    count = int(rows.sum())
    for seed in range(20):
        times = stratified(n, make_generator(seed))
        found = times[rows].sort().values
        gaps = torch.cat([found.diff(), found[:1] + 1 - found[-1:]])  # around the circle
        assert gaps.max() <= 1 / count + 1 / n + 1e-4
        first = times[:count].sort().values
        assert torch.cat([first.diff(), first[:1] + 1 - first[-1:]]).max() > 0.6, "the control"
