"""Untrusted Jinja templates: no access to Python, and bounds on steps, sizes and filters."""

import json
import re
import time
from typing import Any

from jinja2 import TemplateRuntimeError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

MAX_STEPS = 100_000  # of all loops and macros of a template
MAX_SIZE = 1_000_000  # characters or elements
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items", "join",
    "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round",
    "safe", "select", "selectattr", "sort", "string", "sum", "title", "trim", "unique", "upper",
)  # fmt: skip
WIDTH = re.compile(r"\d{6,}")  # in a format


def total(values: Any) -> int:
    """Characters and elements of texts and lists, together."""
    return sum(len(value) for value in values if isinstance(value, (str, list, tuple)))


def check_values(*values: Any) -> None:
    """Check that no number could become a huge width, and no product of sizes a huge text.

    Raises:
        SecurityError: it could.
    """
    flat = [each for value in values for each in (value if isinstance(value, tuple) else (value,))]
    if any(isinstance(value, int) and abs(value) > MAX_SIZE for value in flat) or total(values) > MAX_SIZE:
        raise SecurityError("A value is too large. Use smaller ones.")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, whose loops are counted, without powers and widths.

    Args:
        marks: texts before and after what `{% generation %}` encloses.
    """

    intercepted_binops = frozenset(("*", "**", "%", "+", "~"))

    def __init__(self, marks: tuple[str, str] = ("", "")) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
        self.steps, self.marks = 0, marks
        self.filters = {name: guarded(self.filters[name]) for name in FILTERS}
        self.filters["tojson"] = to_json
        self.globals |= {"_tick": self.tick, "raise_exception": refuse, "strftime_now": now}

    def tick(self) -> str:
        """Count a step.

        Raises:
            SecurityError: too many.
        """
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SecurityError("The template takes too many steps. Use another.")
        return ""

    def _parse(self, *args: Any) -> nodes.Template:
        tree = super()._parse(*args)
        loop: Any
        for loop in tree.find_all((nodes.For, nodes.Macro)):
            loop.body.insert(0, nodes.Output([nodes.Call(nodes.Name("_tick", "load"), [], [], None, None)]))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators within bounds."""
        times = max((side for side in (left, right) if isinstance(side, int)), default=1)
        repeated = total((left, right)) * max(times, 1) if operator == "*" else 0
        if operator == "**" or repeated > MAX_SIZE:
            raise SecurityError("A value is too large. Use smaller ones.")
        if operator == "%" and isinstance(left, str) and WIDTH.search(left):
            raise SecurityError("A width is too large. Use a smaller one.")
        check_values(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls within bounds."""
        check_values(*args, *kwargs.values())
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str):
            check_product(owner, *args)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format` within bounds."""
        found = super().wrap_str_format(value)
        if found is not None and WIDTH.search(value.__self__):
            raise SecurityError("A width is too large. Use a smaller one.")
        return found


def check_product(*values: Any) -> None:
    """Check the size of a text in which each part may be replaced by another.

    Raises:
        SecurityError: it is too large.
    """
    size = 1
    for value in values:
        size *= max(total((value,)), 1)
    if size > MAX_SIZE:
        raise SecurityError("A value is too large. Use smaller ones.")


def guarded(function: Any) -> Any:
    """A filter with bounded arguments."""
    from functools import wraps

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        texts = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, list, tuple, int))]
        check_values(*texts)
        if function.__name__ in ("do_replace", "sync_do_join", "do_join"):
            check_product(*(value for value in texts if not isinstance(value, int)))
        return function(*args, **kwargs)

    return bounded


def refuse(message: str) -> None:
    """`raise_exception` of templates.

    Raises:
        TemplateRuntimeError: always.
    """
    raise TemplateRuntimeError(str(message))


def now(layout: str) -> str:
    """The date, in a layout of at most 40 characters."""
    return time.strftime(str(layout)[:40])


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON, with characters as they are."""
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(int(indent), 8))


class Generation(Extension):
    """`{% generation %}`, which marks answers for training."""

    tags = {"generation"}  # noqa: RUF012  # the library's way

    def parse(self, parser: Any) -> Any:
        """Statements up to `{% endgeneration %}`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks: tuple[str, str] = self.environment.marks  # type: ignore[attr-defined]
        begin, end = (nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in marks)
        return [begin, *body, end]
