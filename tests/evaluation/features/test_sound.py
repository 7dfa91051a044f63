"""Features of sounds: their spectrograms, delays, a recogniser that learns, its file, and its calibration."""

import math
from dataclasses import replace

import pytest
import torch

import zoo
from zoo.core.spaces import Audio, Label
from zoo.core.spec import DataSpec
from zoo.data.loader import make_generator
from zoo.evaluation.features import base, calibration, classifier
from zoo.evaluation.features.base import ClassifierFeatures, features_for
from zoo.evaluation.features.classifier import Classifier, ClassifierConfig, as_image, delayed
from zoo.nn.blocks.mfcc import mel_filters

SHORT = ClassifierConfig(width=4, steps=60, shift=32, batch_size=64)


@pytest.fixture(scope="module")
def tones():
    data = zoo.create_data("synthetic_tones")
    data.setup()
    return data


def test_a_sound_is_its_power_in_bands():
    space = Audio(2, 1000, 8000)
    x = torch.randn(3, 2, 1000, generator=make_generator(0)) / 10
    found = as_image(x, space)
    assert found.shape == (3, 2, 40, 1 + 1000 // 128)
    frame = x[1, 1, 3 * 128 - 128 : 3 * 128 + 128] * torch.hann_window(256)
    power = torch.fft.rfft(frame).abs().square() / 256
    expected = (mel_filters(40, 256, 8000, lowest=0.0).float() @ power).clamp(min=1e-8).log()
    torch.testing.assert_close(found[1, 1, :, 3], (expected + 9) / 5, rtol=1e-3, atol=1e-3)


def test_sounds_are_delayed_as_a_loop_does():
    x, most = torch.randn(40, 2, 9), 3
    moved = delayed(x, most, make_generator(1))
    places = set()
    for sound, result in zip(x, moved, strict=True):
        padded = torch.nn.functional.pad(sound, (most, most))
        fits = [k for k in range(2 * most + 1) if torch.equal(padded[:, k : k + 9], result)]
        assert len(fits) == 1
        places |= set(fits)
    assert len(places) > 4


def test_the_recipe_of_sounds():
    spec = DataSpec(Audio(1, 4096, 8000), Label(10), name="sounds")
    recipe = classifier.recipe_for(spec, 2400)
    assert (recipe.steps, recipe.shift) == (500, 256)
    network = Classifier(spec, recipe.width)
    assert sum(p.numel() for p in network.parameters()) <= classifier.PARAMETERS
    assert network.features(torch.zeros(2, 1, 4096)).shape == (2, classifier.DIM)
    assert len(classifier.key(spec, "data", recipe)) == 16


def test_a_recogniser_learns_and_labels_without_meaning_are_at_chance(tones, tmp_path):
    network = classifier.train(tones, SHORT)
    found = classifier.accuracy(network, tones)
    assert found > 0.9
    classifier.write(tmp_path / "net.safetensors", network, tones.spec, SHORT, accuracy=found)
    features = ClassifierFeatures(tmp_path / "net.safetensors")
    x, _ = tones.fetch(tones.val, torch.arange(50), make_generator(0), train=False)
    assert torch.equal(features.classify(x), network(x).argmax(1))
    assert features(x).shape == (50, 64)
    assert features.n_classes == 8
    other = zoo.create_data("synthetic_tones")
    other.setup()
    sounds, labels = other.train
    other.train = sounds, labels[torch.randperm(len(labels), generator=make_generator(1))]
    chance, n = 1 / 8, len(other.val[0])
    unlearned = classifier.accuracy(classifier.train(other, SHORT), other)
    assert unlearned < chance + 6 * math.sqrt(chance * (1 - chance) / n)


def test_labelled_sounds_have_a_classifier_and_others_have_values(tones, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(classifier, "recipe_for", lambda *_: replace(SHORT, steps=2))
    said = []
    found = features_for(tones.spec, data=tones, say=said.append)
    assert (found.name, found.n_classes) == ("synthetic_tones", 8)
    assert "training a classifier" in said[0]
    assert base.cached(tones).is_file()
    assert features_for(replace(tones.spec, condition=None)).name == "pixels"


def test_faulty_sets_of_sounds_are_what_their_names_say(tones):
    x, y = tones.fetch(tones.train, torch.arange(400), make_generator(0), train=False)
    sets = dict(calibration.faulty(x, y, x[:5], 40, 8))
    assert list(sets) == [
        "floor", "noise", "low-pass", "backwards", "1 of 8 classes missing", "4 of 8 classes missing",
        "5 sounds copied", "per-pixel marginal", "uniform noise",
    ]  # fmt: skip
    first = sets["floor"]
    assert all(part.shape == first.shape and part.abs().max() <= 1 for part in sets.values())
    torch.testing.assert_close(sets["low-pass"][:, :, 2:-1], first.unfold(2, 4, 1).mean(3))
    assert torch.equal(sets["backwards"].flip(2), first)
    assert sets["uniform noise"].min() < -0.9
    assert float((sets["noise"] - first).std()) == pytest.approx(0.03, rel=0.1)
