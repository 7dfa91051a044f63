"""What is read from source against what is imported: the two must say the same of everything that is registered."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo import registry, sketch
from zoo.catalog import ABILITIES, model_info
from zoo.config import compose
from zoo.recipes import recipes, registered_name
from zoo.registry import Written

FOUND = {
    (kind, name): (module, own)
    for package in registry.PACKAGES
    for kind, name, module, own in sketch.registered(package)
}
SAID = ["__name__", "__qualname__", "__module__", "__doc__", "accepts", "family", "paper", "conditional", "monitor"]


@pytest.fixture(scope="module")
def imported() -> dict[tuple[str, str], Any]:
    """Everything the zoo's own modules register, all of them imported."""
    for package in registry.PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    registry.discover()
    table = {(kind, name): thing for kind in registry.kinds() for name, thing in registry._table[kind].items()}
    return {key: thing for key, thing in table.items() if thing.__module__.startswith(registry.PACKAGES)}


def test_nothing_is_overlooked_and_nothing_imagined(imported: dict[tuple[str, str], Any]) -> None:
    assert not [key for key, thing in imported.items() if isinstance(thing, Written)]
    assert {key: (thing.__module__, thing.__qualname__) for key, thing in imported.items()} == FOUND


@pytest.mark.parametrize(("kind", "name"), FOUND, ids=" ".join)
def test_a_sketch_is_like_the_thing(kind: str, name: str, imported: dict[tuple[str, str], Any]) -> None:
    real, drawn = imported[kind, name], sketch.sketch(*FOUND[kind, name])
    assert inspect.isclass(drawn) == inspect.isclass(real)
    for attribute in SAID:
        assert getattr(drawn, attribute, None) == getattr(real, attribute, None), attribute
    for method in ABILITIES:
        assert callable(getattr(drawn, method, None)) == callable(getattr(real, method, None)), method
    assert registry.settings(drawn) == registry.settings(real)
    assert [(s.choices, s.bounds, s.part) for s in registry.settings(drawn)] == [
        (s.choices, s.bounds, s.part) for s in registry.settings(real)
    ]


@pytest.mark.parametrize("kind", ["model", "data"])
def test_the_class_of_a_recipe_is_the_one_that_is_composed(kind: str) -> None:
    for name, path in recipes(kind).items():
        assert registered_name(name, path) == compose(f"{kind}={name}")[kind].name, name


MODULE = '''
import torch
from zoo.models.base import GenerativeModel
from zoo.registry import register
from zoo.spec import PositiveInt
from somewhere import HALF, Base

SIZES = (1, 2)
LEARNT = torch.zeros(2)

@register("model", "drawn")
class Drawn(Base, GenerativeModel):
    """One line."""

    family = "toy"
    paper = "nobody " + str(SIZES[1])
    core = LEARNT

    def __init__(self, spec, *, size: "PositiveInt" = 3, sizes: tuple[int, int] = SIZES, half=None): ...

    @property
    def bound(self): ...

    def log_prob(self, x):
        text = """
stands to the left
"""
        return text


@register("model", "vague")
class Vague:
    def __init__(self, *, half: float = HALF): ...
'''


def test_of_what_is_not_plain_nothing_is_invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inheritance from the zoo is followed, torch's is left out, and what only an import could tell is refused."""
    source = tmp_path / "models" / "drawn.py"
    source.parent.mkdir()
    source.write_text(MODULE)
    for name in ("models/base.py", "registry.py", "spec.py"):
        (tmp_path / name).write_text((Path(registry.__file__).parent / name).read_text())
    monkeypatch.setattr(sketch, "_HERE", tmp_path)
    monkeypatch.setattr(sketch, "_source", sketch._Source)  # nothing is remembered
    assert [row[:2] for row in sketch.registered("zoo.models")] == [("model", "drawn"), ("model", "vague")]
    drawn = sketch.sketch("zoo.models.drawn", "Drawn")
    assert (drawn.__doc__, drawn.family, drawn.paper, drawn.conditional) == ("One line.", "toy", "nobody 2", False)
    assert drawn.core is sketch.Unreadable
    assert callable(drawn.log_prob)
    assert not callable(drawn.bound)
    assert [(s.name, s.type, s.default) for s in registry.settings(drawn)] == [
        ("size", int, 3),
        ("sizes", tuple[int, int], (1, 2)),
        ("half", Any, None),
    ]
    assert registry.settings(drawn)[0].bounds[0].gt == 0
    with pytest.raises(sketch.Unreadable, match="somewhere"):
        sketch.sketch("zoo.models.drawn", "Vague")


@pytest.fixture
def unimported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that nobody has imported, whose class the registry knows of."""
    (tmp_path / "zoo_late.py").write_text(
        "import torch\nfrom zoo import register\nCONSTANT = torch.ones(2)\n\n\n"
        '@register("thing", "late")\nclass Late:\n    pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_discovered", True)
    table = {"thing": {"late": Written("zoo_late", "Late"), "never": Written("zoo_late", "Never")}}
    monkeypatch.setattr(registry, "_table", table)
    monkeypatch.delitem(sys.modules, "zoo_late", raising=False)


@pytest.mark.usefixtures("unimported")
class TestLate:
    def test_a_class_is_imported_when_it_is_needed_and_not_before(self) -> None:
        assert registry.names("thing") == ["late", "never"]
        assert "zoo_late" not in sys.modules
        before = registry.revision
        assert registry.get("thing", "late").__name__ == "Late"
        assert registry.look("thing", "late") is registry.get("thing", "late")
        assert registry.revision == before, "nothing is new to Hydra"

    def test_constants_of_its_module_have_numbers_whatever_is_being_outlined(self) -> None:
        with torch.device("meta"):
            registry.get("thing", "late")
            assert torch.zeros(1).is_meta
        assert sys.modules["zoo_late"].CONSTANT.tolist() == [1.0, 1.0]

    def test_a_module_that_does_not_register_what_its_source_says_is_named(self) -> None:
        with pytest.raises(ImportError, match="zoo_late was imported, but has not registered the thing 'never'"):
            registry.get("thing", "never")

    def test_its_name_is_taken(self) -> None:
        with pytest.raises(ValueError, match="'late' is registered twice: by zoo_late and by"):
            registry.register("thing", "late")(dict)


def test_a_name_that_was_taken_before_the_zoo_was_searched_is_reported_then() -> None:
    script = "import zoo\n@zoo.register('model', 'gan')\nclass Mine: pass\nzoo.list_models()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ValueError: model 'gan' is registered twice: by __main__ and by zoo.models.gan; rename one" in done.stderr


def test_facts_of_a_recipe_come_without_composing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.config.compose", lambda *_: pytest.fail("composed"))
    info = model_info("wgan_gp")
    assert (info.family, info.registered, info.accepts) == ("adversarial", "gan", ("image", "vector"))
