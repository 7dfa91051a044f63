"""Features of moving digits: what their distance finds out, the motion head, and the suites that use them."""

import json

import pytest
import torch

import zoo
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.features import classifier
from zoo.evaluation.features.base import SHIPPED, features_for, shipped_for
from zoo.evaluation.features.calibration import faulty, frozen, shuffled_frames
from zoo.evaluation.suites.video import FramesSuite, MotionSuite
from zoo.metrics.frechet import frechet, moments


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("moving_digits")
    found.setup()
    return found


def real(data, split, n=720):
    return data.fetch(split, torch.arange(n), make_generator(0), train=False)[0]


def test_shuffled_and_frozen_videos_are_far_and_their_frames_are_not(data):
    features = features_for(data.spec)
    assert features.name == "moving_digits"
    held, train = (moments(features(real(data, split))) for split in (data.val, data.train))
    x = real(data, data.val)
    floor = float(frechet(train, held))
    shuffled, still = (
        float(frechet(moments(features(wrong)), held)) for wrong in (shuffled_frames(x, make_generator(1)), frozen(x))
    )
    assert shuffled > 1.5 * floor
    assert still > 5 * floor

    class Drawn(EvaluationContext):
        drawn = shuffled_frames(x, make_generator(1)), torch.zeros(len(x))

    context = Drawn(zoo.create_model("copies", data=data), data, EvaluationConfig(split="val", samples=len(x)))
    (frames,) = FramesSuite().measure(context).values()
    assert frames.value < 1e-5 < frames.real_data_reference, "the same frames, in another order"
    motion = MotionSuite().measure(context)
    assert motion["motion_kept@720_val"].value < 0.1
    assert motion["motion_kept@720_val"].real_data_reference == 1.0


def test_the_card_is_that_of_the_weights(data):
    network, card = classifier.read(shipped_for(data.spec))
    assert shipped_for(data.spec) == SHIPPED / "moving_digits.safetensors"
    assert classifier.accuracy(network, data) == pytest.approx(card["accuracy"], abs=0.005)
    assert classifier.motion_accuracy(network, data) == pytest.approx(card["motion_accuracy"], abs=0.005)
    table = card["calibration"]
    assert table["frozen"]["frechet"] > table["frames shuffled"]["frechet"] > 2 * table["floor"]["frechet"]
    assert json.loads((SHIPPED / "moving_digits.json").read_text())["motions"] == 4


def test_motion_labels_are_the_speeds(data):
    labels, count = classifier.motion_labels(data, data.test[0])
    down, right = data.test[0][:, 3].abs(), data.test[0][:, 4].abs()
    assert count == 4
    assert torch.equal(labels, 2 * (down - 1) + right - 1)
    digits = zoo.create_data("digits")
    digits.setup()
    assert classifier.motion_labels(digits, digits.val[0])[1] == 0, "images do not move"


def test_training_depends_on_the_motion_and_can_be_repeated(tmp_path):
    small = zoo.create_data("moving_digits", frames=3, size=10)
    small.setup()
    recipe = classifier.ClassifierConfig(width=4, steps=6, batch_size=64)
    one, two = (classifier.train(small, recipe) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    rows, labels = small.train
    small.train = torch.cat([rows[:, :3], rows[:, 3:].roll(1, 0)], 1), labels  # other motions, and other videos
    assert not torch.equal(classifier.train(small, recipe).motion.weight, one.motion.weight)
    path = tmp_path / "small.safetensors"
    classifier.write(path, one, small.spec, recipe)
    again, _ = classifier.read(path)
    x = real(small, small.val, 10)
    assert torch.equal(again.motion(again.features(x)), one.motion(one.features(x)))


def test_faulty_sets_of_videos():
    x, y = torch.rand(40, 3, 1, 8, 8), torch.arange(40) % 4
    sets = dict(faulty(x, y, x[:5], 10, 4))
    assert {"floor", "frames shuffled", "frozen"} <= set(sets)
    assert "blur" not in sets
    assert all(part.shape == (10, 3, 1, 8, 8) for part in sets.values())
    assert torch.equal(sets["frames shuffled"].sum(1).round(decimals=4), x[:10].sum(1).round(decimals=4))
