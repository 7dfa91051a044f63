"""Batches from the values of loaders."""

import pytest
import torch

from zoo.data.batch import Batch

X, Y = torch.rand(3, 2), torch.tensor([2, 0, 1])


@pytest.mark.parametrize("value", [(X, Y), [X, Y], {"x": X, "y": Y}, Batch(X, Y), (X, Y, None)])
def test_pairs_mappings_and_batches_are_taken(value: object) -> None:
    x, y = Batch.of(value)
    assert x is X
    assert y is Y


@pytest.mark.parametrize("value", [X, (X,), {"x": X}])
def test_without_labels_they_are_zero(value: object) -> None:
    assert Batch.of(value).y.tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", ["text", (1, 2), {"images": X}, {"x": X, "label": Y}])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="not a batch"):
        Batch.of(value)


def test_length_and_device() -> None:
    batch = Batch(X, Y, mask=X > 0)
    assert len(batch) == 3
    moved = batch.to("meta")
    assert all(part.is_meta for part in (moved.x, moved.y, moved.mask))
    assert Batch(X, Y).to("cpu").mask is None
