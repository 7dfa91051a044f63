"""What a registered class says of itself, read from its source: importing it would take torch and Lightning, seconds.

`sketch` makes a class (or function) with the same name, docstring, constructor's signature, class attributes and bases
within the zoo, whose methods do nothing: so `inspect`, inheritance and `zoo.registry.settings` say of it what they
would say of the class itself, and tests/test_sketch.py compares the two for everything that is registered.
"""

import ast
import builtins
import importlib
import re
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

_HERE = Path(__file__).parent
LIGHT = ("zoo.errors", "zoo.registry", "zoo.spec", "annotated_types")  # imported for real, and the standard library
_REGISTERED = re.compile(r'^@register\("([\w-]+)", "([\w-]+)"\)\n(?:@.*\n)*(?:class|def) (\w+)', re.MULTILINE)


class Unreadable(ZooError):
    """A name in the source that only an import could tell the value of."""


def registered(package: str) -> Iterator[tuple[str, str, str, str]]:
    """Kind, name, module and the class's own name of all that a package of the zoo registers."""
    for path in sorted(_HERE.joinpath(*package.split(".")[1:]).glob("*.py")):
        for kind, name, qualname in _REGISTERED.findall(path.read_text(encoding="utf-8")):
            yield kind, name, f"{package}.{path.stem}", qualname


def sketch(module: str, name: str) -> Any:
    """The sketch of a class or function of the zoo.

    Raises:
        Unreadable: its signature or bases need what is not known without imports.
    """
    return _source(module).value(name)


@cache
def _source(module: str) -> "_Source":
    return _Source(module)


class _Source:
    """A module of the zoo as text, whose names get their values one by one, when they are asked for."""

    def __init__(self, module: str) -> None:
        path = _HERE.joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.module = module
        self.values: dict[str, Any] = {}
        self.statements: dict[str, ast.stmt] = {}  # what gives a name its value
        for statement in _parsed(path.read_text(encoding="utf-8"), path).body:
            for name in _names(statement):
                self.statements[name] = statement

    def value(self, name: str) -> Any:
        if name not in self.values:
            self.values[name] = self._value(name)
        return self.values[name]

    def _value(self, name: str) -> Any:
        statement = self.statements.get(name)
        match statement:
            case ast.Import() | ast.ImportFrom():
                return self._imported(statement, name)
            case ast.ClassDef():
                return self._class(statement)
            case ast.FunctionDef():
                return self._signature(statement)
            case ast.Assign(value=expression) | ast.AnnAssign(value=ast.expr() as expression):
                return self._evaluate(expression)
        if statement is None and hasattr(builtins, name):
            return getattr(builtins, name)
        raise Unreadable(f"{self.module} says nothing simple about {name}")

    def _imported(self, statement: ast.Import | ast.ImportFrom, name: str) -> Any:
        alias = next(a for a in statement.names if _bound(a) == name)
        if isinstance(statement, ast.Import):
            return _light(alias.name if alias.asname else name)
        module = str(statement.module)
        if f"{module}.{alias.name}" in LIGHT:  # from zoo import registry
            return _light(f"{module}.{alias.name}")
        if module.startswith("zoo.") and module not in LIGHT:
            return _source(module).value(alias.name)
        return getattr(_light(module), alias.name)

    def _evaluate(self, expression: ast.expr, known: dict[str, Any] | None = None) -> Any:
        return eval(compile(ast.Expression(expression), self.module, "eval"), self._scope(expression, known or {}))

    def _scope(self, tree: ast.AST, known: dict[str, Any]) -> dict[str, Any]:
        """Values of all names in an expression."""
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        return {name: known[name] if name in known else self.value(name) for name in names}

    def _class(self, statement: ast.ClassDef) -> type:
        bases = []
        for base in statement.bases:
            try:
                found = self._evaluate(base)
            except Unreadable:  # torch's or Lightning's
                continue
            if isinstance(found, type) and "__sketch__" in vars(found):
                bases.append(found)
        inside: dict[str, Any] = {
            "__sketch__": True,
            "__module__": self.module,
            "__doc__": ast.get_docstring(statement, clean=False),
        }
        for item in statement.body:
            if isinstance(item, ast.FunctionDef):
                inside[item.name] = self._method(item)
            elif isinstance(item, (ast.Assign, ast.AnnAssign)) and item.value:
                for name in _names(item):
                    try:
                        inside[name] = self._evaluate(item.value, inside)
                    except Unreadable:  # it is there, and hides what the bases have
                        inside[name] = Unreadable
        return type(statement.name, tuple(bases), inside)

    def _method(self, statement: ast.FunctionDef) -> Any:
        decorators = {node.id for d in statement.decorator_list for node in ast.walk(d) if isinstance(node, ast.Name)}
        if {"property", "cached_property"} & decorators:
            return property()
        return self._signature(statement) if statement.name == "__init__" else _nothing

    def _signature(self, statement: ast.FunctionDef) -> Any:
        """A function that does nothing with the hyperparameters of another: names, annotations and defaults."""
        given = statement.args
        own = ast.arguments(
            posonlyargs=[ast.arg(a.arg) for a in given.posonlyargs],
            args=[ast.arg(a.arg) for a in given.args],
            vararg=given.vararg and ast.arg(given.vararg.arg),
            kwonlyargs=[ast.arg(a.arg, a.annotation and _unquoted(a.annotation)) for a in given.kwonlyargs],
            kw_defaults=given.kw_defaults,
            kwarg=given.kwarg and ast.arg(given.kwarg.arg),
            defaults=[ast.Constant(None) for _ in given.defaults],
        )
        function = ast.FunctionDef(statement.name, own, [ast.Pass()], [])
        scope = self._scope(own, {}) | {"__name__": self.module}
        exec(compile(ast.fix_missing_locations(ast.Module([function], [])), self.module, "exec"), scope)
        made = scope[statement.name]
        made.__doc__ = ast.get_docstring(statement, clean=False)
        return made


def _parsed(text: str, path: Path) -> ast.Module:
    """The module's syntax without the bodies of methods, which are most of it, and of parsing it."""
    kept, skipping = [], False
    for line in text.splitlines():
        if not (skipping and (not line.strip() or line[:5].isspace())):
            skipping = line.startswith(("    def ", "    )")) and line.endswith(":")
            kept.append(f"{line} ..." if skipping else line)
    try:
        return ast.parse("\n".join(kept), path)
    except SyntaxError:  # a text in a body that stands further left than the body
        return ast.parse(text, path)


def _names(statement: ast.stmt) -> list[str]:
    """The names that a statement binds, if it is one whose value can be read."""
    match statement:
        case ast.ClassDef() | ast.FunctionDef():
            return [statement.name]
        case ast.Import() | ast.ImportFrom():
            return [_bound(a) for a in statement.names]
        case ast.Assign(targets=targets):
            return [t.id for t in targets if isinstance(t, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _unquoted(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def _light(module: str) -> types.ModuleType:
    if module not in LIGHT and module.partition(".")[0] not in sys.stdlib_module_names:
        raise Unreadable(f"{module} is not imported to read about a class")
    return importlib.import_module(module)


def _nothing(*_: Any, **__: Any) -> None:
    """Stands for a method."""
