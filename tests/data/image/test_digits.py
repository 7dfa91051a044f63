"""Digits of scikit-learn."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from zoo.core import registry
from zoo.data.image import digits

FIRST_LABELS = {
    "train": [6, 5, 5, 7, 9, 9, 8, 4, 6, 8, 6, 0],
    "val": [2, 4, 8, 4, 9, 6, 8, 7, 7, 2, 1, 4],
    "test": [0, 0, 1, 1, 4, 5, 1, 7, 2, 2, 8, 8],
}


def module():
    data = registry.build("data", "digits")
    data.setup()
    return data


def test_spec_describes_a_batch():
    data = module()
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (64, *data.spec.shape) == (64, 1, 8, 8)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert (data.spec.x.registered_name, data.spec.n_classes, data.spec.name) == ("image", 10, "digits")
    every = torch.cat([data.train[0], data.val[0], data.test[0]])
    levels = data.spec.image.levels
    assert every.unique().tolist() == [k / (levels - 1) for k in range(levels)]


def test_the_splits_are_the_whole_set_without_overlap():
    data = module()
    splits = (data.train, data.val, data.test)
    assert [len(x) for x, _ in splits] == [1437, 180, 180]
    ours = sorted((*(x * 16).int().flatten().tolist(), int(c)) for s in splits for x, c in zip(*s, strict=True))
    bunch = load_digits()
    theirs = sorted(
        (*x.astype(int).flatten().tolist(), int(c)) for x, c in zip(bunch.images, bunch.target, strict=True)
    )
    assert ours == theirs
    for _, y in splits:
        assert np.bincount(y).min() > len(y) * 0.05, "every class in every split"


def test_the_splits_never_change():
    """Checksums: a change of the split makes published scores incomparable."""
    data = registry.build("data", {"name": "digits", "seed": 5})
    data.setup()
    assert torch.equal(data.train[0], module().train[0])
    assert data.train[1][:12].tolist() == FIRST_LABELS["train"]
    assert data.val[1][:12].tolist() == FIRST_LABELS["val"]
    assert data.test[1][:12].tolist() == FIRST_LABELS["test"]


def test_the_table_equals_scikit_learns(monkeypatch):
    bunch = load_digits()
    direct = digits.table()
    np.testing.assert_array_equal(direct, np.column_stack([bunch.data, bunch.target]))
    monkeypatch.setattr(digits, "find_spec", lambda name: None)  # the file is not where it used to be
    monkeypatch.setattr(np, "loadtxt", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: bunch)
    np.testing.assert_array_equal(digits.table(), direct)
