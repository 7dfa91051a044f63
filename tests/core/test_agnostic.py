"""Core code names no family, model, data set or space, and imports no family of models."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from zoo.config.recipes import recipes
from zoo.core import registry

ZOO = Path(__file__).parents[2] / "zoo"
FOLDERS = ("core", "io", "runs", "training", "cli", "config", "benchmarks")
FILES = ("api.py", "evaluation/evaluate.py", "evaluation/context.py", "evaluation/report.py", "viz/render.py")
CORE = [*(file for name in FOLDERS for file in sorted((ZOO / name).rglob("*.py"))), *(ZOO / name for name in FILES)]
CONTRACT = {
    f"zoo.models{name}"
    for name in ("", ".base", ".abilities", ".ability", ".image_abilities", ".results", ".options", ".lightning_mixin")
}
UNITS = ("unit", "items")  # attributes of spaces that hold plain words, some of which are names too


@cache
def names() -> set[str]:
    """Names of models, data, recipes, spaces and families."""
    families = {registry.peek("model", name).family for name in registry.names("model")}
    return families | {*recipes("model"), *recipes("data"), *registry.names("space")}


def dependencies(source: str, forbidden: set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and text of each import of a family, and of each string that is a forbidden name.

    Docstrings, decorators (which register), the units of spaces and counted nouns in messages do not count.
    """
    tree, exempt = ast.parse(source), set[int]()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as text):
                exempt.add(id(text))
            case ast.ClassDef(decorator_list=found) | ast.FunctionDef(decorator_list=found):
                exempt |= {id(part) for decorator in found for part in ast.walk(decorator)}
            case ast.Call(func=ast.Name(id="counted"), args=[_, *nouns]):
                exempt |= {id(noun) for noun in nouns}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant() as text) if name in UNITS:
                exempt.add(id(text))
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)):
                modules = [module, *(f"{module}.{alias.name}" for alias in node.names if module == "zoo.models")]
            case ast.Import():
                modules = [alias.name for alias in node.names]
            case ast.Constant(value=str(text)) if text in forbidden and id(node) not in exempt:
                yield node.lineno, repr(text)
                continue
            case _:
                continue
        yield from ((node.lineno, m) for m in modules if m.startswith("zoo.models") and m not in CONTRACT)


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.relative_to(ZOO).as_posix())
def test_core_code_is_agnostic(file: Path) -> None:
    assert list(dependencies(file.read_text(encoding="utf-8"), names())) == []


@pytest.mark.parametrize(
    "line",
    [
        'if model.family == "adversarial": pass',
        'data = {"gpt": 1}',
        'def create(data="digits"): pass',
        'if kind in ("image", "x"): pass',
        'unit = {"cgan": 2}',
        "from zoo.models.adversarial.gan import GAN",
        "from zoo.models import finetuning",
        "import zoo.models.baselines.base",
    ],
)
def test_a_dependency_is_found(line: str) -> None:
    allowed = (
        '"gan"\nfrom zoo.models.base import Model\n@register("space", "image")\nclass Image:\n    unit: str = "image"\n'
    )
    assert len(list(dependencies(allowed + line, names()))) == 1
    assert not list(dependencies(allowed, names()))
