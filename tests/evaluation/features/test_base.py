"""Features: the shipped files, what a call promises, and which features some data gets."""

from dataclasses import replace

import pytest
import pytorch_lightning as L
import torch
from torch import nn

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label, Tokens, Vector
from zoo.core.spec import DataSpec
from zoo.evaluation.features import base, classifier
from zoo.evaluation.features.base import (
    SHIPPED,
    ClassifierFeatures,
    Features,
    PixelFeatures,
    StackedFeatures,
    features_for,
)
from zoo.io.atomic import sha256
from zoo.metrics.frechet import random_projection

DIGITS = DataSpec(Image(1, 8, 8, levels=17), Label(10), name="digits")
MNIST = DataSpec(Image(1, 28, 28), Label(10), name="mnist")
POINTS = DataSpec(Vector(2), Label(8), name="ring8")


def loaded(name, **settings):
    data = registry.build("data", {"name": name, **settings})
    data.setup()
    return data


# -- built-in files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [DIGITS, MNIST], ids=str)
def test_shipped_files_are_small_and_those_of_their_cards(spec):
    path = SHIPPED / f"{spec.name}.safetensors"
    found = features_for(spec)
    assert isinstance(found, ClassifierFeatures)
    assert path.stat().st_size < 500_000
    assert found.sha256 == sha256(path)
    assert (found.name, found.dim, found.shape, found.n_classes) == (spec.name, 64, spec.shape, 10)
    recipe = classifier.recipe_for(spec, {"digits": 1437, "mnist": 55_000}[spec.name])
    assert found.card["recipe"] == vars(recipe), "what `zoo features` would train"


def test_shipped_digits_are_as_accurate_as_stated():
    data, found = loaded("digits"), features_for(DIGITS)
    right = int((found.classify(data.val[0]) == data.val[1]).sum())
    assert found.card["accuracy"] >= 0.97
    assert right >= round(found.card["accuracy"] * len(data.val[1])) - 1
    assert found.card["held_out"] == len(data.val[1])
    assert found.card["data"] == classifier.fingerprint(data)


@pytest.mark.parametrize(("binarize", "least"), [("none", 0.99), ("threshold", 0.98), ("dynamic", 0.97)])
def test_shipped_mnist_is_as_accurate_as_stated_and_serves_binary_images(binarize, least, zoo_data):
    data = loaded("mnist", path=zoo_data, binarize=binarize)
    found = features_for(data.spec)
    rows = torch.arange(len(data.val[1]))
    x, y = data.fetch(data.val, rows, torch.Generator(), train=False)
    right = int((found.classify(x) == y).sum())
    assert right >= least * len(y)
    if binarize == "none":
        assert right >= round(found.card["accuracy"] * len(y)) - 1


# -- what a call promises ----------------------------------------------------------------------------------------


def test_batches_change_nothing_and_no_gradient_flows():
    found, x = features_for(DIGITS), torch.rand(23, 1, 8, 8, requires_grad=True)
    whole = found(x)
    assert whole.shape == (23, 64)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    found.batch_size = 7
    torch.testing.assert_close(found(x), whole)
    torch.testing.assert_close(found(x.double()), whole)
    assert torch.equal(found.classify(x), found.network(x).argmax(1))


def test_a_module_that_holds_features_does_not_own_them():
    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.body, self.features = nn.Linear(2, 2), features_for(DIGITS)

    model = Model()
    model.train()
    assert not model.features.network.training
    assert [name for name, _ in model.named_parameters()] == ["body.weight", "body.bias"]
    assert list(model.state_dict()) == ["body.weight", "body.bias"]


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ZooError, match="features=digits: for samples 1x8x8, but these are 1x28x28"):
        features_for(DIGITS)(torch.rand(2, 1, 28, 28))


def test_pixels():
    points = torch.randn(1100, 2)
    assert torch.equal(features_for(POINTS)(points), points)
    images, spec = torch.rand(9, 3, 16, 20), DataSpec(Image(3, 16, 20))
    found = features_for(spec)
    assert isinstance(found, PixelFeatures)
    assert (found.name, found.dim, found.sha256) == ("pixels", 64, "")
    torch.testing.assert_close(found(images), random_projection(images))
    with pytest.raises(ZooError, match="features=pixels: cannot classify"):
        found.classify(images)


# -- which features some data gets -----------------------------------------------------------------------------


def test_what_is_chosen_without_being_asked():
    assert features_for(POINTS).name == "pixels"
    assert features_for(DataSpec(Image(1, 8, 8), name="images")).name == "pixels", "no labels"
    assert features_for(DataSpec(Image(1, 28, 28, levels=2), Label(10), name="mnist")).name == "mnist"
    assert features_for(DIGITS, "pixels").name == "pixels"


REFUSED = {
    "tokens": (DataSpec(Tokens(16, 9)), {}, "Measure its likelihood"),
    "unknown": (DIGITS, {"kind": "pixel"}, "unknown features 'pixel', did you mean 'pixels'"),
    "points": (POINTS, {"kind": "classifier"}, "Use features=pixels"),
    "no labels": (DataSpec(Image(1, 8, 8), name="images"), {"kind": "classifier"}, "does not have labels"),
    "weights for nothing": (DIGITS, {"kind": "pixels", "weights": "x"}, "features=pixels: does not have weights"),
    "other size": (DataSpec(Image(1, 14, 14), Label(10), name="mnist"), {}, "zoo features data=mnist"),
    "no file": (DIGITS, {"weights": "nowhere.safetensors"}, "no feature network at nowhere.safetensors"),
    "other weights": (
        DIGITS,
        {"weights": SHIPPED / "mnist.safetensors"},
        "trained on mnist (image 1x28x28, 10 classes)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(case):
    spec, options, message = REFUSED[case]
    with pytest.raises(ZooError) as raised:
        features_for(spec, **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_data_gets_a_classifier_of_its_own_once(tmp_path, monkeypatch):
    """Digits under another name: trained and announced once, then found again; changed data is other data."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    short = classifier.ClassifierConfig(width=8, steps=150)
    monkeypatch.setattr(base.classifier, "recipe_for", lambda spec, n: short)
    data = loaded("digits")
    spec = replace(DIGITS, name="own")
    monkeypatch.setattr(type(data), "spec", spec)
    said = []
    first = features_for(spec, data=data, say=said.append)
    assert len(said) == 1
    assert "training a classifier of own" in said[0]
    again = features_for(spec, data=data, say=said.append)
    assert len(said) == 1
    assert first.sha256 == again.sha256
    assert first.name == "own"
    assert first.card["accuracy"] > 0.8
    data.train = 1 - data.train[0], data.train[1]
    assert features_for(spec, data=data, say=said.append).sha256 != first.sha256
    assert len(said) == 3
    assert "names only" in said[2], "inverted digits are nothing that it has seen"
    assert len(list((tmp_path / "features").glob("own-*.safetensors"))) == 2
    named = next((tmp_path / "features").glob("own-*.safetensors"))
    assert features_for(DIGITS, weights=named).name == "own", "a file that is named comes before the shipped one"


# -- stacked channels --------------------------------------------------------------------------------------------


class Brightness(Features):
    """Mean and maximum of an image; its class is ten times the mean."""

    n_classes = 10

    def __init__(self):
        super().__init__("brightness", 2, (1, 4, 4), "hash")

    def extract(self, x):
        return torch.stack([x.flatten(1).mean(1), x.flatten(1).amax(1)], 1)

    def label(self, x):
        return (10 * x.flatten(1).mean(1)).round().long()


def test_channels_are_judged_one_by_one():
    digits = torch.randint(10, (57, 3))
    x = (digits / 10)[..., None, None].expand(-1, -1, 4, 4)
    stacked = StackedFeatures("three", Brightness(), 3)
    stacked.batch_size = 10
    assert stacked.classify(x).tolist() == [int("".join(map(str, d))) for d in digits.tolist()]
    assert (stacked.dim, stacked.n_classes, stacked.sha256) == (6, 1000, "hash")
    x = torch.rand(25, 3, 4, 4)
    expected = torch.cat([Brightness()(x[:, [c]]) for c in range(3)], dim=1)
    torch.testing.assert_close(stacked(x), expected)


def test_stacked_mnist_is_read_by_the_classifier_of_mnist():
    found = features_for(DataSpec(Image(3, 28, 28), Label(1000), name="stacked_mnist"))
    single, x = features_for(MNIST), torch.rand(6, 3, 28, 28)
    assert (found.name, found.dim, found.sha256) == ("stacked_mnist", 192, single.sha256)
    torch.testing.assert_close(found(x)[:, 64:128], single(x[:, 1:2]))
    assert found.classify(x).tolist() == [
        int("".join(map(str, d))) for d in single.classify(x.flatten(0, 1)[:, None]).view(6, 3).tolist()
    ]
