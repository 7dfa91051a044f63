"""Names, signatures and the errors that come of them, without Hydra or torch."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Interval, MinLen

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.registry import build, get, isolated, names, peek, register, unknown_name_message
from zoo.core.signature import REQUIRED, Betas, Component, Entry, Positive, PositiveInt, describe, hyperparameters


@pytest.fixture
def shelf() -> Iterator[None]:
    """An empty registry, and no search for more."""
    with registry.isolated(empty=True):
        yield


class Thing:
    def __init__(
        self,
        given: str,
        *,
        size: PositiveInt = 3,
        rate: Positive,
        share: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5,
        betas: Betas = (0.9, 0.99),
        mode: Literal["fast", "slow"] | None = "fast",
        inner: Annotated[str | dict[str, Any], Component("thing")] = "other",
    ) -> None:
        self.given, self.size, self.rate, self.mode, self.betas = given, size, rate, mode, betas


@pytest.mark.usefixtures("shelf")
class TestNames:
    def test_what_is_registered_can_be_got_and_knows_its_name(self) -> None:
        assert register("thing", "one")(Thing) is Thing
        assert get("thing", "one") is Thing
        assert Thing.registered_name == "one"
        assert names("thing") == ["one"]
        assert names("thing", "o*") == ["one"]
        assert names("thing", "x*") == []

    def test_a_name_cannot_be_taken_twice(self) -> None:
        register("thing", "one")(Thing)
        register("thing", "one")(Thing)  # the same again, as when a module is reloaded
        with pytest.raises(ValueError, match=r"'one' is registered twice: by .*test_registry and by builtins"):
            register("thing", "one")(dict)

    def test_what_is_registered_again_is_described_anew(self) -> None:
        """As in a notebook, where a cell is run again after a change."""
        for default in (1, 2):

            def thing(*, size: int = default) -> None: ...

            before = registry.generation
            register("thing", "one")(thing)
            assert registry.generation > before
            assert peek("thing", "one").settings[0].default == default

    def test_an_isolated_registration_is_undone(self) -> None:
        register("thing", "one")(Thing)
        before = registry.generation
        with isolated():
            register("thing", "two")(Thing)
            register("other", "one")(Thing)
            assert (names("thing"), names("other")) == (["one", "two"], ["one"])
        assert (names("thing"), names("other")) == (["one"], [])
        assert registry.generation > before

    def test_an_unknown_name_is_answered_with_the_nearest(self) -> None:
        register("model", "gan")(Thing)
        register("model", "vae")(lambda: None)
        with pytest.raises(KeyError, match=r"unknown model 'gna', did you mean 'gan'\? \(have: gan, vae\)"):
            get("model", "gna")
        assert unknown_name_message("model", "transformer", ["gan"]) == "unknown model 'transformer' (have: gan)"
        many = ["gan", *(f"m{i}" for i in range(30))]
        assert unknown_name_message("model", "gna", many) == "unknown model 'gna', did you mean 'gan'? (there are 31)"
        assert "m29" in unknown_name_message("model", "transformer", many)


@pytest.mark.usefixtures("shelf")
class TestSettings:
    def test_keyword_only_parameters_are_the_settings(self) -> None:
        found = {s.name: s for s in hyperparameters(Thing)}
        assert list(found) == ["size", "rate", "share", "betas", "mode", "inner"]
        assert found["size"].type == "int"
        assert found["mode"].choices == ("fast", "slow", None)
        assert found["inner"].part == "thing"

    def test_lists_and_optional_numbers_are_checked(self) -> None:
        def made(*, words: Annotated[list[str], MinLen(1)] | None = None, width: PositiveInt | None = None) -> None: ...

        words, width = hyperparameters(made)
        assert (words.type, width.type, width.limits) == ("list[str] | None", "int | None", (("gt", 0),))
        for setting, good in ((words, ["a"]), (words, ("a", "b")), (words, None), (width, 3), (width, None)):
            setting.check(good, "data")
        for setting, bad, message in (
            (words, "age", r"data.words='age': of the wrong type. Give a list of texts: data.words=\[age\]."),
            (words, [3], r"data.words=\[3\]: of the wrong type. Give a list of texts: data.words=\[VALUE\]."),
            (width, -1, "data.width=-1 is out of range: it must be greater than 0."),
            (width, 2**63, "data.width=9223372036854775808: more than 64 bits hold. Give a number nearer to 0."),
            (width, "x", "data.width='x': of the wrong type. Give a value of type int | None."),
        ):
            with pytest.raises(ZooError, match=message.replace("|", r"\|")):
                setting.check(bad, "data")

    @pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
    def test_numbers_are_finite(self, bad: float) -> None:
        def made(*, lr: Positive = 1.0, shift: float = 0.0, betas: list[float] = []) -> None: ...  # noqa: B006

        for setting in hyperparameters(made):
            with pytest.raises(ZooError, match=r"(not a finite number|out of range)"):
                setting.check([bad] if setting.name == "betas" else bad, "model")

    def test_a_description_survives_json(self) -> None:
        entry = describe("thing", "one", Thing, "somewhere")
        assert Entry.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry
        found = {s.name: s for s in entry.settings}
        assert found["rate"].default is REQUIRED
        assert found["betas"].default == (0.9, 0.99)
        assert (found["betas"].type, found["betas"].bounds) == ("list[float]", "at least 0 and less than 1")
        assert (found["mode"].type, found["mode"].choices) == ("str | None", ("fast", "slow", None))

    def test_the_meaning_is_in_the_docstring_of_the_class_or_of_its_bases(self) -> None:
        class Base:
            """A base.

            Args:
                width: of the layers,
                    in channels.
                depth: number of layers.
            """

        class Own(Base):
            """A class.

            Args:
                depth: number of blocks: each has two layers.

            Raises:
                ZooError: never.
            """

            def __init__(self, *, width: int = 1, depth: int = 2, other: str = "") -> None: ...

        meanings = {s.name: s.help for s in hyperparameters(Own)}
        assert meanings == {
            "width": "of the layers, in channels.",
            "depth": "number of blocks: each has two layers.",
            "other": "",
        }

    def test_a_default_that_is_not_a_plain_value_is_refused(self) -> None:
        def thing(*, inner: Any = object()) -> None: ...  # noqa: B008

        register("thing", "odd")(thing)
        with pytest.raises(ZooError, match=r"thing 'odd': inner=<object .* is not a plain value"):
            peek("thing", "odd")

    def test_building_hands_over_what_is_given(self) -> None:
        register("thing", "one")(Thing)
        thing = build("thing", {"name": "one", "rate": 0.1, "mode": None}, "given")
        assert (thing.given, thing.size, thing.rate, thing.mode) == ("given", 3, 0.1, None)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"rate": 0.0}, r"thing.rate=0.0 is out of range: it must be greater than 0"),
            ({"rate": 1, "size": -1}, r"thing.size=-1 is out of range: it must be greater than 0"),
            ({"rate": 1, "share": 1.5}, r"thing.share=1.5 is out of range: .*at least 0 and at most 1"),
            ({"rate": 1, "betas": [0.9, 1.0]}, r"thing.betas=\[0.9, 1.0\] is out of range"),
            ({"rate": "fast"}, r"thing.rate='fast': of the wrong type. Give a value of type float"),
            ({"rate": 1, "mode": "fats"}, r"thing.mode='fats' is not a choice: did you mean 'fast'\?"),
            ({"rate": 1, "siez": 3}, r"thing: unknown setting 'siez', did you mean 'size'"),
            ({}, r"thing: rate must be set\. Add thing\.rate=VALUE"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, values: dict[str, Any], message: str) -> None:
        register("thing", "one")(Thing)
        with pytest.raises(ZooError, match=message):
            build("thing", {"name": "one", **values}, "given")

    @pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load", "one.__init__", None])
    def test_only_registered_names_can_be_built(self, name: Any) -> None:
        register("thing", "one")(Thing)
        with pytest.raises(ZooError, match="unknown thing"):
            build("thing", {"name": name, "rate": 1.0}, "given")


def test_looking_up_names_imports_nothing_heavy() -> None:
    script = "import zoo, sys; zoo.register; print([m for m in ('torch', 'hydra', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
