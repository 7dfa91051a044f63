"""Inception's features: never downloaded, never a pickle's code, and torch-fidelity's own where there is a file."""

import pickle
import sys

import pytest
import torch

from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.evaluation.features.base import features_for
from zoo.io.atomic import sha256

GREY = DataSpec(Image(1, 8, 8), Label(10), name="digits")
COLOUR = DataSpec(Image(3, 9, 12), name="images")


@pytest.fixture
def inception(monkeypatch):
    """torch-fidelity's module, which may not download."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="needs torch-fidelity")

    def refuse(*args, **options):
        raise AssertionError("tried to download.")

    monkeypatch.setattr(module, "load_state_dict_from_url", refuse)
    return module


class Malice:
    def __reduce__(self):
        return print, ("code of a file was run",)


def refused(spec, weights, message):
    with pytest.raises(ZooError) as raised:
        features_for(spec, "inception", weights)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_a_file_the_sentence_says_where_to_get_one(tmp_path):
    for weights in (None, tmp_path / "none.pth"):
        refused(GREY, weights, "get weights-inception-2015-12-05-6726825d.pth from torch-fidelity's releases")
    refused(DataSpec(Image(4, 8, 8)), tmp_path, "has 4 channels")
    refused(DataSpec(Vector(2)), tmp_path, "Use features=pixels")


def test_without_torch_fidelity(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").touch()
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", raising=False)
    refused(GREY, tmp_path / "weights.pth", "pip install torch-fidelity")


def test_files_that_are_not_its_weights(inception, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    refused(GREY, path, "does not hold Inception's weights")
    path.write_bytes(pickle.dumps(Malice()))
    refused(GREY, path, "does not hold Inception's weights")
    torch.save({"fc.weight": torch.zeros(3)}, path)
    refused(GREY, path, "does not hold Inception's weights")
    torch.save([1, 2], path)
    refused(GREY, path, "does not hold Inception's weights")
    torch.save(Malice(), path)
    refused(GREY, path, "does not hold Inception's weights")
    assert "code of a file was run" not in capsys.readouterr().out


def test_features_are_those_of_torch_fidelity(inception, tmp_path, monkeypatch):
    """With weights made up here: grey and colour images give what the network itself gives for their bytes."""
    with monkeypatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None)
        network = inception.FeatureExtractorInceptionV3("any", ["2048"])
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    for spec in (GREY, COLOUR):
        found = features_for(spec, "inception", path)
        assert (found.name, found.dim, found.sha256) == ("inception", 2048, sha256(path))
        bytes_ = torch.randint(256, (1, *spec.shape), dtype=torch.uint8)
        with torch.no_grad():
            (expected,) = network(bytes_.expand(-1, 3, -1, -1))
        features = found(bytes_ / 255)
        assert features.shape == (1, 2048)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
        assert not features.requires_grad
