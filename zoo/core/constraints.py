"""Constraints of the rows of a table, as plain values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from zoo.core.columns import Column, read_objects

ConstraintKind = Literal["at_least", "at_most", "order", "fixed", "unique"]
KINDS: tuple[str, ...] = get_args(ConstraintKind)
NO_CODE = -1  # of a missing category


@dataclass(frozen=True)
class Constraint:
    """A rule that all rows of a table obey. A missing cell obeys every comparison, and differs from every other one.

    - at_least, at_most: a column is compared with `value`.
    - order: the second column is the larger one.
    - fixed: the columns have one of the combinations of categories in `allowed`.
    - unique: no two rows are equal in the columns.

    Args:
        kind: at_least, at_most, order, fixed or unique.
        columns: names.
        strict: whether equal values break a comparison.
        value: of at_least and at_most; a date as a number of days or seconds, like its column.
        allowed: codes of each combination; -1 stands for a missing value.

    Raises:
        ValueError: values that describe no constraint.
    """

    kind: ConstraintKind
    columns: tuple[str, ...]
    strict: bool = False
    value: float = 0.0
    allowed: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.columns)
        numbers = {"at_least": n == 1, "at_most": n == 1, "order": n == 2, "fixed": n > 1, "unique": n > 0}
        plain = (
            numbers.get(self.kind, False)
            and all(isinstance(name, str) for name in self.columns)
            and isinstance(self.strict, bool)
            and isinstance(self.value, int | float)
            and self.value == self.value
            and all(len(codes) == n and all(type(code) is int for code in codes) for codes in self.allowed)
        )
        if not plain or bool(self.allowed) != (self.kind == "fixed"):
            raise ValueError(f"constraint {self.kind} of {self.columns}: not valid.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Constraint":
        """Inverse of `to_dict`; keys of a newer version are ignored.

        Raises:
            ValueError: values that describe no constraint.
        """
        known: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        try:
            known |= {"columns": tuple(known["columns"]), "allowed": tuple(map(tuple, known.get("allowed", ())))}
            return cls(**known)
        except (KeyError, TypeError) as error:
            raise ValueError(f"constraint: {error}") from None


def write_constraints(constraints: Sequence[Constraint]) -> str:
    """Constraints as JSON; empty if there are none."""
    return json.dumps([rule.to_dict() for rule in constraints], ensure_ascii=False) if constraints else ""


def read_constraints(text: str, columns: Sequence[Column]) -> tuple[Constraint, ...]:
    """Inverse of `write_constraints`.

    Raises:
        ValueError: not a list of constraints, or of other columns than the learned ones.
    """
    if not text:
        return ()
    rules = tuple(Constraint.from_dict(values) for values in read_objects(text, "constraints"))
    kinds = {column.name: column for column in columns if column.kind != "key"}
    for rule in rules:
        if any(name not in kinds for name in rule.columns):
            raise ValueError(f"constraint of {rule.columns}: no such columns.")
        compared = rule.kind in ("at_least", "at_most", "order")
        if any(kinds[name].numeric != compared for name in rule.columns) and rule.kind != "unique":
            raise ValueError(f"constraint of {rule.columns}: columns of another kind.")
    return rules
