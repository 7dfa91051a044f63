"""Calibration: faulty sets match their names, and built-in tables contain the expected values."""

import json

import pytest
import torch
from torch.nn import functional as F

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.loader import make_generator
from zoo.evaluation.features import calibration
from zoo.evaluation.features.base import SHIPPED, PixelFeatures, features_for
from zoo.evaluation.features.calibration import calibrate, faulty, size

FAULTS = ("floor", "noise", "blur", "1 of 10 classes missing", "5 of 10 classes missing", "100 images copied")
FAULTS += ("per-pixel marginal", "uniform noise")


@pytest.fixture(scope="module")
def digits():
    data = registry.build("data", "digits")
    data.setup()
    data.test = None  # nothing here may look at it
    return data


def card(name):
    return json.loads((SHIPPED / f"{name}.json").read_text())["calibration"]


def agree(table, other):
    """Equal except for rounding of another build of torch."""
    assert list(table) == list(other) == list(FAULTS)
    for fault, values in table.items():
        for metric, value in values.items():
            slack = {"frechet": 0.02 * max(value, 1.0), "ratio": 0.01}.get(metric, 0.02)
            assert value == pytest.approx(other[fault][metric], abs=slack), (fault, metric)


def test_the_table_of_digits_is_what_is_measured(digits):
    agree(calibrate(features_for(digits.spec), digits), card("digits"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_table_of_mnist_is_what_is_measured(zoo_data):
    data = registry.build("data", {"name": "mnist", "path": zoo_data})
    data.setup()
    agree(calibrate(features_for(data.spec), data), card("mnist"))


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_frechet_distance_grows_with_what_is_wrong(name):
    """A 3x3 mean takes more from 8x8 images than shuffling them pixel by pixel does, so there it is left out."""
    fd = {fault: values["frechet"] for fault, values in card(name).items()}
    mild = ["noise", "1 of 10 classes missing", "5 of 10 classes missing", *(["blur"] if name == "mnist" else [])]
    for fault in mild:
        assert fd["floor"] < fd[fault] < fd["per-pixel marginal"] < fd["uniform noise"], fault
    assert fd["floor"] < fd["blur"] < fd["uniform noise"]
    assert fd["1 of 10 classes missing"] < fd["5 of 10 classes missing"]


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_copies_are_exposed_by_the_probe_and_not_by_the_distance(name):
    table = card(name)
    copies, floor = table["100 images copied"], table["floor"]
    assert copies["frechet"] < table["5 of 10 classes missing"]["frechet"], "half of the digits missing is worse"
    assert copies["precision"] > floor["precision"] - 0.05
    assert (copies["ratio"], copies["copied"], copies["authentic"]) == (0, 1, 0)
    assert floor["ratio"] == pytest.approx(1, abs=0.1)
    assert floor["copied"] < 0.05


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_missing_classes_are_seen_by_recall_and_coverage_not_by_precision(name):
    table = card(name)
    half, floor = table["5 of 10 classes missing"], table["floor"]
    assert half["precision"] > floor["precision"] - 0.05
    assert half["recall"] < floor["recall"] - 0.1
    assert half["coverage"] < floor["coverage"] - 0.1


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_classifier_tells_noise_from_data_and_not_data_from_data(name):
    table = card(name)
    assert table["floor"]["two_sample"] == pytest.approx(0.5, abs=0.06)
    assert table["uniform noise"]["two_sample"] > 0.95


# -- the sets ----------------------------------------------------------------------------------------------------


def test_faulty_sets_are_what_they_are_called():
    x, y = torch.rand(300, 2, 5, 6, generator=make_generator(1)), torch.arange(300) % 10
    copied, n = torch.rand(100, 2, 5, 6, generator=make_generator(2)), 140
    sets = dict(faulty(x, y, copied, n, 10))
    assert list(sets) == list(FAULTS)
    assert {len(found) for found in sets.values()} == {n}
    assert all(found.min() >= 0 and found.max() <= 1 for found in sets.values())
    first = sets["floor"]
    assert torch.equal(first, x[:n])

    inner = (first > 0.4) & (first < 0.6)  # far from the ends, where nothing is cut off
    noise = (sets["noise"] - first)[inner]
    assert noise.mean() == pytest.approx(0, abs=4 * 0.1 / len(noise) ** 0.5)
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    inside = torch.stack([first[:, :, i : i + 3, j : j + 4] for i in range(3) for j in range(3)]).mean(0)
    torch.testing.assert_close(sets["blur"][:, :, 1:-1, 1:-1], F.pad(inside, [0, 0, 0, 0])[:, :, :3, :4])

    flat = {tuple(image.flatten().tolist()): label for image, label in zip(x, y.tolist(), strict=True)}
    for missing in (1, 5):
        labels = {flat[tuple(image.flatten().tolist())] for image in sets[f"{missing} of 10 classes missing"]}
        assert labels == set(range(missing, 10))
    assert len(sets["100 images copied"].flatten(1).unique(dim=0)) == 100

    marginal = sets["per-pixel marginal"]
    assert torch.equal(marginal.sort(0).values, first.sort(0).values), "each pixel has the values it had"
    assert not any((image == other).all() for image in marginal for other in first)


def test_a_set_that_too_few_images_remain_for_is_left_out():
    x, y = torch.rand(100, 1, 4, 4), torch.arange(100) % 2
    names = [name for name, _ in faulty(x, y, x[:5], 60, 2)]
    assert names == ["floor", "noise", "blur", "5 images copied", "per-pixel marginal", "uniform noise"]


def test_what_is_set_aside_is_not_called_training_data(digits, monkeypatch):
    """The floor is new to the probe although all of it is from the training split; the copies are not."""
    monkeypatch.setattr(calibration, "scores", lambda *_: {})
    table = calibrate(PixelFeatures(digits.spec), digits)
    assert table["floor"]["copied"] < 0.05
    assert table["100 images copied"]["copied"] == 1


def test_few_images_make_smaller_sets_and_very_few_are_refused(digits, monkeypatch):
    x, y = digits.train
    monkeypatch.setattr(digits, "train", (x[:70], y[:70]))
    assert size(digits) == 20
    table = calibrate(PixelFeatures(digits.spec), digits)
    assert "20 images copied" in table
    assert table["20 images copied"]["copied"] == 1
    monkeypatch.setattr(digits, "train", (x[:34], y[:34]))
    with pytest.raises(ZooError, match=r"with 34 training and 180 validation images. Give at least 35 and 10"):
        calibrate(PixelFeatures(digits.spec), digits)
