"""`zoo features`: what it writes and prints, and what it refuses."""

import json
from dataclasses import replace

import pytest

from zoo.cli.main import main
from zoo.core import spec
from zoo.evaluation.features import base, classifier
from zoo.io.atomic import sha256


@pytest.fixture
def zoo_features(cli, tmp_path, monkeypatch):
    """The command with a temporary cache and a short training."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    full = classifier.recipe_for
    monkeypatch.setattr(base.classifier, "recipe_for", lambda spec, n: replace(full(spec, n), width=8, steps=60))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["zoo", "features", *arguments])
        return cli("features", *arguments, entry=main)

    return call


def test_weights_and_card_are_written_and_printed(zoo_features, tmp_path):
    result = zoo_features("data=digits", "--out", "new/mine.safetensors")
    assert result.code == 0, result.err
    card = json.loads((tmp_path / "new" / "mine.json").read_text())
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["mine.json", "mine.safetensors"]
    assert card["sha256"] == sha256(tmp_path / "new" / "mine.safetensors")
    assert card["sha256"] in result.out
    assert f"{card['accuracy']:.2%} of 180 validation samples" in result.out
    assert next(iter(card["calibration"])) == "floor"
    assert "per-pixel marginal" in result.out
    found = base.features_for(spec.DataSpec.from_dict(card["spec"]), weights=tmp_path / "new/mine.safetensors")
    assert found.sha256 == card["sha256"]
    assert not (tmp_path / "cache").exists()


def test_by_default_it_goes_to_the_cache(zoo_features, tmp_path):
    result = zoo_features()
    assert result.code == 0, result.err
    (weights,) = (tmp_path / "cache" / "features").glob("digits-*.safetensors")
    assert weights.name in result.out
    assert "use the built-in classifier by default" in result.out


REFUSED = {
    "another key": (["model=vae"], "model=vae: not a setting of data"),
    "a name of another kind": (["data=digits", "--out", "x.pt"], "Name it x.safetensors"),
    "points": (["data=ring8"], "not images, videos or sounds with labels. Use features=pixels"),
    "stacked": (["data=stacked_mnist"], "Train with data=mnist"),
    "a typo": (["data=digit"], "did you mean 'digits'"),
    "a setting": (["data.path=x"], "unknown setting 'path'"),
    "missing files": (["data=mnist", "data.path=nowhere", "data.download=false"], "nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_ends_in_one_sentence(case, zoo_features, tmp_path):
    arguments, message = REFUSED[case]
    result = zoo_features(*arguments)
    assert result.code == 1
    assert message in result.err
    assert len([line for line in result.err.splitlines() if line.strip()]) == 1
    assert not list(tmp_path.rglob("*.safetensors"))
