"""The classifiers behind the features: what training uses, that it can be repeated, and their files."""

import json
from dataclasses import replace

import pytest
import torch

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.loader import make_generator
from zoo.evaluation.features import classifier
from zoo.evaluation.features.classifier import Classifier, ClassifierConfig
from zoo.io.atomic import sha256

SHORT = ClassifierConfig(width=8, steps=25)


@pytest.fixture
def digits():
    data = registry.build("data", "digits")
    data.setup()
    return data


def weights(network):
    return torch.cat([t.flatten() for t in network.state_dict().values()])


def test_training_is_repeated_bit_for_bit(digits):
    before = torch.random.get_rng_state()
    first = weights(classifier.train(digits, SHORT))
    assert torch.equal(torch.random.get_rng_state(), before), "the global random state is nobody else's business"
    torch.manual_seed(5)
    assert torch.equal(weights(classifier.train(digits, SHORT)), first)
    assert not torch.equal(weights(classifier.train(digits, replace(SHORT, seed=1))), first)


def test_training_sees_the_training_split_alone(digits):
    expected = weights(classifier.train(digits, SHORT))
    nothing = torch.full_like(digits.val[0], torch.nan), digits.val[1]
    digits.val = digits.test = nothing
    assert torch.equal(weights(classifier.train(digits, SHORT)), expected)
    x, y = digits.train
    digits.train = 1 - x, y
    assert not torch.equal(weights(classifier.train(digits, SHORT)), expected)


def test_accuracy_is_that_on_the_validation_split(digits):
    """A network that learned, and one whose labels meant nothing; the test split may hold anything."""
    digits.test = None
    recipe = replace(SHORT, steps=150)
    learned = classifier.train(digits, recipe)
    x, y = digits.val
    assert classifier.accuracy(learned, digits) == pytest.approx(float((learned(x).argmax(1) == y).float().mean()))
    assert classifier.accuracy(learned, digits) > 0.7
    x, y = digits.train
    digits.train = x, y[torch.randperm(len(y), generator=make_generator(1))]
    assert classifier.accuracy(classifier.train(digits, recipe), digits) < 0.3


def test_shifted_images_lie_where_a_loop_puts_them():
    x, most = torch.rand(60, 2, 5, 7), 2
    moved = classifier.shifted(x, most, make_generator(3))
    found = set()
    for image, result in zip(x, moved, strict=True):
        padded = torch.nn.functional.pad(image, [most] * 4)
        fits = [(i, j) for i in range(5) for j in range(5) if torch.equal(padded[:, i : i + 5, j : j + 7], result)]
        assert len(fits) == 1
        found |= set(fits)
    assert len(found) > 20, "nearly all of the 25 places"


@pytest.mark.parametrize(
    ("shape", "n", "width", "steps", "shift"),
    [((1, 8, 8), 1437, 16, 1000, 1), ((1, 28, 28), 55_000, 8, 3437, 1), ((3, 64, 64), 10**6, 8, 4000, 2)],
)
def test_the_recipe_fits_the_data(shape, n, width, steps, shift):
    spec = DataSpec(Image(*shape), Label(10))
    recipe = classifier.recipe_for(spec, n)
    assert (recipe.width, recipe.steps, recipe.shift) == (width, steps, shift)
    network = Classifier(spec, recipe.width)
    assert network.features(torch.rand(2, *shape)).shape == (2, classifier.DIM)
    assert network.features(torch.rand(2, *shape)).min() >= 0


def test_the_fingerprint_and_the_key_are_those_of_the_contents(digits):
    first = classifier.fingerprint(digits)
    assert classifier.fingerprint(digits) == first
    spec = digits.spec
    known = classifier.key(spec, first, SHORT)
    assert classifier.key(replace(spec, x=replace(spec.image, levels=2)), first, SHORT) == known, (
        "binarised images share a network"
    )
    others = {
        classifier.key(replace(spec, name="other"), first, SHORT),
        classifier.key(spec, first, replace(SHORT, steps=26)),
        classifier.key(spec, "other", SHORT),
    }
    assert len(others | {known}) == 4
    x, y = digits.train
    digits.train = x, y.roll(1)
    labels = classifier.fingerprint(digits)
    changed = x.clone()
    changed[1000] = 0
    digits.train = changed, y
    assert len({first, labels, classifier.fingerprint(digits)}) == 3


# -- files ---------------------------------------------------------------------------------------------------


def test_a_network_survives_its_file(digits, tmp_path):
    network, path = classifier.train(digits, replace(SHORT, steps=2)), tmp_path / "new" / "net.safetensors"
    card = classifier.write(path, network, digits.spec, SHORT, accuracy=0.5)
    again, read = classifier.read(path)
    assert read == json.loads(json.dumps(card))
    assert (read["accuracy"], read["name"], read["dim"]) == (0.5, "digits", 64)
    assert torch.equal(weights(again), weights(network))
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"], "no drafts"
    first = path.read_bytes()
    classifier.write(path, again, digits.spec, SHORT)
    assert path.read_bytes() == first


def test_files_that_do_not_belong_together_are_refused(digits, tmp_path):
    path = tmp_path / "net.safetensors"
    card = classifier.write(path, classifier.train(digits, replace(SHORT, steps=1)), digits.spec, SHORT)
    content = path.read_bytes()

    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(path, "does not match the SHA-256 in net.json")
    path.write_bytes(content)
    classifier.write_card(path, {**card, "recipe": {**card["recipe"], "width": 16}})
    refused(path, "cannot be read")
    classifier.card_of(path).write_text("{")
    refused(path, "cannot be read")
    classifier.write_card(path, {**card, "sha256": sha256(empty(path))})
    refused(path, "cannot be read")
    classifier.card_of(path).unlink()
    refused(path, "net.json is missing")
    refused(tmp_path / "none.safetensors", "zoo features data=NAME --out none.safetensors")


def empty(path):
    path.write_bytes(b"")
    return path


def refused(path, message):
    with pytest.raises(ZooError) as raised:
        classifier.read(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
