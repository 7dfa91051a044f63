"""Spaces describe data, survive a checkpoint, and refuse values that describe nothing."""

import pytest
import torch

from zoo.core.errors import ZooError
from zoo.core.space import Space
from zoo.core.spaces import Codes, Image, Label, Pair, Preference, Questions, Series, Tokens, Vector, tokens_of
from zoo.core.spec import DataSpec

TEXT = Tokens(5, 9, "serialised")
SPACES = [
    Image(3, 4, 5, levels=2),
    Vector(2, ("a", "b")),
    TEXT,
    Label(3),
    Codes((7, 7), 512),
    Pair(TEXT, TEXT),
    Preference(TEXT),
    Questions(4, TEXT),
    Series(9, ("level", "flow"), 3, missing=True),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_plain_values_give_the_space_back(space: Space) -> None:
    assert Space.from_dict(space.to_dict()) == space
    spec = DataSpec(space, Label(4), name="data")
    again = DataSpec.from_dict(spec.to_dict())
    assert again == spec
    assert again.n_classes == 4
    assert DataSpec.from_dict(DataSpec(space).to_dict()).condition is None


def test_shapes_leave_the_batch_out() -> None:
    assert Image(3, 4, 5).shape == (3, 4, 5)
    assert Image(3, 4, 5).size == 60
    assert Codes((7, 7), 512).size == 49
    assert Pair(Tokens(4, 9), Tokens(6, 9)).shape == (6,)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"space": "nope"},
        {"space": "image"},
        {"space": "image", "channels": 0, "height": 2, "width": 2},
        {"space": "image", "channels": True, "height": 2, "width": 2},
        {"space": "image", "channels": 1.5, "height": 2, "width": 2},
        {"space": "image", "channels": 1, "height": 2**20, "width": 2**20},
        {"space": "tokens", "length": 4, "vocab_size": 9, "tokenizer": 7},
        {"space": "codes", "grid": [2, -2], "codebook_size": 4},
        {"space": "series", "length": 4, "columns": [], "horizon": 1},
        {"space": "series", "length": 4, "columns": ["a"], "horizon": 4},
        {"space": "series", "length": 4, "columns": ["a", 3], "horizon": 1},
        {"space": "series", "length": 4, "columns": ["a"], "horizon": 1, "missing": 1},
        {"space": "pair", "first": 3, "second": {"space": "label", "n_classes": 2}},
    ],
)
def test_values_that_describe_no_space_are_refused(values: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        Space.from_dict(values)
    with pytest.raises((ValueError, KeyError)):
        DataSpec.from_dict({"x": values})


def test_a_batch_is_checked_against_its_space() -> None:
    Image(1, 2, 2).validate(torch.rand(3, 1, 2, 2))
    for bad in (torch.rand(3, 2, 2), 2 * torch.ones(3, 1, 2, 2), torch.ones(3, 1, 2, 2, dtype=torch.uint8)):
        with pytest.raises(ZooError):
            Image(1, 2, 2).validate(bad)


def test_text_is_found_inside_structures() -> None:
    assert tokens_of(Pair(Vector(2), Preference(TEXT))) is TEXT
    assert tokens_of(Image(1, 2, 2)) is None
    assert "serialised" not in repr(DataSpec(TEXT)), "a spec does not print its tokenizer"
    with pytest.raises(ZooError, match="not text"):
        _ = DataSpec(Vector(2)).tokens
    with pytest.raises(ZooError, match="not images"):
        _ = DataSpec(TEXT).image


def test_values_may_be_missing_where_a_series_says_so() -> None:
    x = torch.zeros(2, 4, 1)
    x[0, 1] = torch.nan
    Series(4, ("a",), 1, missing=True).validate(x)
    for space, values in ((Series(4, ("a",), 1), x), (Series(4, ("a",), 1, missing=True), x.nan_to_num(torch.inf))):
        with pytest.raises(ZooError, match="float and finite"):
            space.validate(values)
