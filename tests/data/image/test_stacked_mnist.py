"""Stacked MNIST with synthetic and real files: the channels are the digits of the label."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.image.test_torchvision import GREY, LABELS, write_mnist
from zoo.config.compose import compose, to_plain
from zoo.core import registry
from zoo.data.image import torchvision
from zoo.data.image.stacked_mnist import SIZES
from zoo.data.loader import make_generator

SPLITS = {"train": slice(0, 60), "val": slice(60, 70), "test": slice(70, 90)}  # of the made-up MNIST


@pytest.fixture
def stacked(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision, "N_VAL", 10)
    return lambda **settings: data(write_once(tmp_path), **settings)


def write_once(root):
    return root if (root / "MNIST").is_dir() else write_mnist(root)


def data(root, **settings):
    module = registry.build("data", {"name": "stacked_mnist", "path": str(root), "download": False, **settings})
    module.setup()
    return module


def test_the_spec_needs_no_files(tmp_path):
    spec = registry.build("data", {"name": "stacked_mnist", "path": str(tmp_path)}).spec
    assert (spec.x.registered_name, spec.shape, spec.n_classes, spec.image.levels) == ("image", (3, 28, 28), 1000, 256)
    assert spec.name == "stacked_mnist"
    assert not list(tmp_path.iterdir())
    assert to_plain(compose("data=stacked_mnist").data)["name"] == "stacked_mnist"


@pytest.mark.parametrize("split", SPLITS)
def test_each_channel_is_a_digit_of_the_same_split_and_the_label_names_all_three(split, stacked):
    module = stacked()
    part = getattr(module, split)
    assert len(part[0]) == len(part[1]) == SIZES[split]
    rows = torch.arange(300)
    x, y = module.fetch(part, rows, make_generator(0), train=split == "train")
    assert (x.shape, x.dtype, y.dtype) == ((300, 3, 28, 28), torch.float32, torch.int64)
    images = {
        image.tobytes(): int(label) for image, label in zip(GREY[SPLITS[split]], LABELS[SPLITS[split]], strict=True)
    }
    found = (x * 255).round().to(torch.uint8).numpy()
    for image, label in zip(found, y.tolist(), strict=True):
        a, b, c = (images[np.ascontiguousarray(channel).tobytes()] for channel in image)
        assert label == 100 * a + 10 * b + c
    used = {np.ascontiguousarray(channel).tobytes() for image in found for channel in image}
    assert len(used) == len(images), "every digit of the split appears"


def test_the_triples_are_always_the_same(stacked):
    one, two = stacked(seed=0), stacked(seed=7)
    for split in SPLITS:
        for mine, other in zip(getattr(one, split), getattr(two, split), strict=True):
            assert torch.equal(mine, other), "for every seed, so that scores can be compared"
    first, other = (next(iter(module.train_dataloader())) for module in (one, two))
    assert not torch.equal(first.y, other.y), "but not their order"
    assert torch.equal(next(iter(stacked(seed=0).train_dataloader())).x, first.x)
    assert len(one.train[0].unique(dim=0)) > 0.5 * 60**3 * (1 - np.exp(-128_000 / 60**3)), "drawn, not repeated"


def test_only_a_table_of_indices_is_kept(stacked):
    module = stacked()
    assert module.pixels.shape == (90, 28, 28)
    assert module.pixels.dtype == torch.uint8
    assert [tuple(getattr(module, split)[0].shape) for split in SPLITS] == [(n, 3) for n in SIZES.values()]


ROOT = os.environ.get("ZOO_DATA")


@pytest.mark.skipif(
    not ROOT or not Path(ROOT, "MNIST/raw").is_dir(), reason="needs MNIST in the folder that ZOO_DATA names"
)
def test_real_digits_are_counted_by_the_classifier_of_mnist():
    from zoo.evaluation.features.base import features_for

    module = data(ROOT)
    x, y = module.fetch(module.val, torch.arange(2000), make_generator(0), train=False)
    predicted = features_for(module.spec).classify(x)
    single = 0.99
    assert (predicted == y).float().mean() > single**3 - 3 * (single**3 * (1 - single**3) / 2000) ** 0.5
    assert len(module.test[1].unique()) == 1000, "all modes are among the test images"
    counts = torch.bincount(module.train[1], minlength=1000)
    assert counts.min() > 50, "and none is rare among the training images"
