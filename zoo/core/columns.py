"""Columns of tables: their kinds, values and scales, as plain values."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, get_args

ColumnKind = Literal["number", "category", "date", "key"]
KINDS: tuple[str, ...] = get_args(ColumnKind)
MAX_KNOTS = 4096  # of one column


@dataclass(frozen=True)
class Column:
    """One column of a table.

    A number is on a grid (low + k * step), or real for step 0. Its scale maps t = (number - low) / unit to standard
    normal scores: linear between knots, and beyond them. The knots of a grid are borders of its cells, k + 1/2. Dates
    are numbers of days or seconds since 1970. A key is different in every row; models do not learn it.

    Args:
        name: heading.
        kind: number, category, date or key.
        categories: texts in the order of their codes.
        missing: whether values are missing in some rows.
        low: smallest number.
        high: largest number.
        step: distance of neighbours on the grid; 0 for real numbers.
        decimals: written after the point.
        knots: values of t, increasing.
        scores: standard normal scores at the knots, increasing.
        date_format: of `datetime.strftime`.

    Raises:
        ValueError: values that describe no column.
    """

    name: str
    kind: ColumnKind
    categories: tuple[str, ...] = ()
    missing: bool = False
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    decimals: int = 0
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    date_format: str = ""

    def __post_init__(self) -> None:
        plain = (
            isinstance(self.name, str)
            and self.kind in KINDS
            and isinstance(self.missing, bool)
            and isinstance(self.date_format, str)
            and type(self.decimals) is int
            and all(isinstance(text, str) for text in self.categories)
            and all(_finite(v) for v in (self.low, self.high, self.step, *self.knots, *self.scores))
        )
        if not plain or not self.low <= self.high or self.step < 0 or not 0 <= self.decimals <= 20:
            raise ValueError(f"column {self.name!r}: not valid.")
        rising = _rising(self.knots) and _rising(self.scores) and len(self.knots) == len(self.scores)
        if self.numeric and not (2 <= len(self.knots) <= MAX_KNOTS and rising):
            raise ValueError(f"column {self.name!r}: its scale is not increasing.")
        if self.kind == "category" and (not self.categories or len(set(self.categories)) != len(self.categories)):
            raise ValueError(f"column {self.name!r}: its categories are not distinct.")

    @property
    def numeric(self) -> bool:
        """Whether values are numbers."""
        return self.kind in ("number", "date")

    @property
    def unit(self) -> float:
        """Unit of t: the step of a grid, or the range of real numbers."""
        return self.step or (self.high - self.low) or 1.0

    @property
    def width(self) -> int:
        """Numbers of the column in an encoded row."""
        if self.kind == "key":
            return 0
        return 1 + 2 * self.missing if self.numeric else len(self.categories) + self.missing

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without defaults."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Column":
        """Inverse of `to_dict`; keys of a newer version are ignored.

        Raises:
            ValueError: values that describe no column.
        """
        known: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(str(error)) from None


def write_columns(columns: tuple[Column, ...]) -> str:
    """Columns as JSON."""
    return json.dumps([column.to_dict() for column in columns], ensure_ascii=False)


def read_objects(text: str, what: str) -> list[dict[str, Any]]:
    """A JSON list of objects.

    Raises:
        ValueError: anything else.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"{what} are a list.") from None
    if not isinstance(found, list) or not all(isinstance(values, dict) for values in found):
        raise ValueError(f"{what} are a list.")
    return found


def read_columns(text: str) -> tuple[Column, ...]:
    """Inverse of `write_columns`.

    Raises:
        ValueError: not a list of columns with different names.
    """
    columns = tuple(Column.from_dict(values) for values in read_objects(text, "columns"))
    if len({column.name for column in columns}) != len(columns):
        raise ValueError("two columns have one name.")
    return columns


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rising(values: tuple[float, ...]) -> bool:
    return all(a < b for a, b in pairwise(values))
