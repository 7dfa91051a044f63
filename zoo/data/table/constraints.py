"""Constraints of rows: read from texts, found in data, checked, and obeyed by samples."""

import math
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from zoo.core.columns import Column
from zoo.core.constraints import NO_CODE, Constraint
from zoo.core.counted import counted
from zoo.core.errors import DataError, ZooError
from zoo.core.registry import unknown_name_message
from zoo.core.spaces import Table
from zoo.data.table.infer import DAY, date_cell, field_of
from zoo.nn.blocks.table_codec import TableCodec
from zoo.nn.samplers.noise import fork

AUTO = "auto"  # in a list of constraints: those that are found in the data
ROUNDS = 100  # of drawing rows again
LEAST_DRAWN = 32  # rows in a round
CHANCE = 1e-6  # with which a constraint that is found may hold by accident
COMPARISON = re.compile(r"(<=|>=|<|>)")
CALL = re.compile(r"\s*(fixed|unique)\s*\((.*)\)\s*")

# -- from texts ----------------------------------------------------------------------------------------------------


def read_rules(texts: Sequence[str], columns: Sequence[Column], cells: Tensor) -> list[Constraint]:
    """Constraints of texts such as "18 <= age", "start <= end", "fixed(city, country)" and "unique(first, last)".

    Args:
        texts: of `data.constraints`; a comparison may have three parts, and "auto" stands for `find_rules`.
        columns: those that are learned.
        cells: of all rows (N, C).

    Raises:
        DataError: a text that is not a constraint, an unknown column, a column of another kind, or a row that does not
            obey.
    """
    rules = list[Constraint]()
    for text in texts:
        where = f"data.constraints={text}"
        if text.strip() == AUTO:
            rules += find_rules(columns, cells)
        elif call := CALL.fullmatch(text):
            names = [name.strip() for name in call[2].split(",")]
            places = [place(name, columns, where) for name in names]
            rules.append(combination(call[1], [columns[i] for i in places], cells[:, places], where))
        else:
            parts = COMPARISON.split(text)
            if len(parts) not in (3, 5):
                raise DataError(
                    f"{where}: not a constraint. Write 0<=COLUMN, COLUMN<=COLUMN, fixed(COLUMN,COLUMN) or "
                    "unique(COLUMN)."
                )
            rules += [compared(parts[i : i + 3], columns, where) for i in range(0, len(parts) - 2, 2)]
    for rule in rules:
        check(rule, columns, cells)
    return list(dict.fromkeys(rules))


def place(name: str, columns: Sequence[Column], where: str) -> int:
    """Place of a name among the learned columns.

    Raises:
        DataError: there is none.
    """
    names = [column.name for column in columns]
    if name not in names:
        raise DataError(f"{where}: {unknown_name_message('learned column', name, names)}.")
    return names.index(name)


def combination(kind: str, of: Sequence[Column], cells: Tensor, where: str) -> Constraint:
    """A constraint `fixed` or `unique` of columns, with their cells (N, K).

    Raises:
        DataError: one column twice, or columns of numbers or a single one in `fixed`.
    """
    names = tuple(column.name for column in of)
    if len(set(names)) != len(names):
        raise DataError(f"{where}: a column is named twice. Name each once.")
    if kind == "unique":
        return Constraint("unique", names)
    if len(of) < 2 or any(column.numeric for column in of):
        raise DataError(f"{where}: fixed combinations are those of two or more categories. Name such columns.")
    return Constraint("fixed", names, allowed=combinations(cells))


def combinations(cells: Tensor) -> tuple[tuple[int, ...], ...]:
    """Different rows of cells (N, K) of categories, as codes."""
    return tuple(tuple(int(code) for code in row) for row in codes(cells).unique(dim=0).tolist())


def codes(cells: Tensor) -> Tensor:
    """Cells of categories as int64 codes; missing ones get `NO_CODE`."""
    return cells.nan_to_num(NO_CODE).long()


def compared(parts: Sequence[str], columns: Sequence[Column], where: str) -> Constraint:
    """A comparison (left, sign, right) of two columns, or of a column with a number or date.

    Raises:
        DataError: no column, a column of categories, or a value that is not of the column's type.
    """
    left, sign, right = parts
    small, large = (left.strip(), right.strip()) if sign[0] == "<" else (right.strip(), left.strip())
    names = [column.name for column in columns]
    of = [columns[names.index(name)] for name in (small, large) if name in names]
    if not of:
        raise DataError(f"{where}: {unknown_name_message('learned column', small, names)}.")
    for column in of:
        if not column.numeric:
            raise DataError(f"{where}: {column.name} has categories. Compare numbers or dates.")
    strict = len(sign) == 1
    if len(of) == 2:
        if of[0].kind != of[1].kind:
            raise DataError(f"{where}: compares a number with a date. Compare columns of one type.")
        return Constraint("order", (small, large), strict)
    text, column = (large, of[0]) if of[0].name == small else (small, of[0])
    try:
        value = date_cell(text, column.date_format) if column.kind == "date" else float(text)
    except ValueError:
        kind = f"column, and not a {column.kind}" if text else column.kind
        raise DataError(f"{where}: {text!r} is not a {kind}. Write the name of a column, or a value.") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {text} is not finite. Write a number.")
    return Constraint("at_most" if text == large else "at_least", (column.name,), strict, value)


def check(rule: Constraint, columns: Sequence[Column], cells: Tensor) -> None:
    """Check that all rows obey.

    Raises:
        DataError: a row does not.
    """
    wrong = breaks(rule, columns, cells).nonzero()[:, 0]
    if n := len(wrong):
        verb = "breaks" if n == 1 else "break"
        raise DataError(
            f"data.constraints={text_of(rule, columns)}: {counted(n, 'row')} of the data {verb} it, the first is row "
            f"{int(wrong[0]) + 1}. Repair the data, or leave the constraint out."
        )


def text_of(rule: Constraint, columns: Sequence[Column]) -> str:
    """A constraint as it is written in `data.constraints`."""
    names, sign = ",".join(rule.columns), "<" if rule.strict else "<="
    if rule.kind in ("fixed", "unique"):
        return f"{rule.kind}({names})"
    if rule.kind == "order":
        return f"{rule.columns[0]}{sign}{rule.columns[1]}"
    column = next(column for column in columns if column.name == names)
    value = field_of(column, rule.value) if column.kind == "date" else f"{rule.value:.12g}"
    return f"{value}{sign}{names}" if rule.kind == "at_least" else f"{names}{sign}{value}"


# -- from data -----------------------------------------------------------------------------------------------------


def find_rules(columns: Sequence[Column], cells: Tensor) -> list[Constraint]:
    """Orders of two columns, and categories that determine others, that hold in all rows and not by accident.

    Of two independent columns, all N rows would be in order with a probability of about (1 - p)^N. The share of
    disordered pairs is p. The probability has to be below `CHANCE`, and p at least 1 %. A category determines another
    one if equal ones always have the same. With independent columns, each row after the first of a category would agree
    with a probability of the sum of squared shares. All of them agree by accident with less than `CHANCE`.

    Args:
        columns: those that are learned.
        cells: of all rows (N, C).
    """
    found = list[Constraint]()
    scaled = comparable(columns, cells)
    for i, first in enumerate(columns):
        for j, second in enumerate(columns):
            if i == j:
                continue
            both = ~(cells[:, i].isnan() | cells[:, j].isnan())
            if first.numeric and first.kind == second.kind:
                low, high = scaled[both, i], scaled[both, j]
                if bool((low <= high).all()) and surprising(low, high):
                    found.append(Constraint("order", (first.name, second.name), bool((low < high).all())))
            elif i < j and not first.numeric and not second.numeric:
                pair = codes(cells[:, [i, j]])
                if determines(pair) or determines(pair.flip(1)):
                    found.append(Constraint("fixed", (first.name, second.name), allowed=combinations(pair)))
    return found


def surprising(low: Tensor, high: Tensor) -> bool:
    """Whether an order of all pairs (N,) is not likely by accident."""
    above = torch.searchsorted(low.sort().values, high, right=True)  # numbers of `low` that are at most each of `high`
    disordered = 1 - float(above.double().mean()) / max(len(low), 1)
    return disordered >= 0.01 and len(low) * math.log1p(-min(disordered, 1 - 1e-9)) < math.log(CHANCE)


def determines(pair: Tensor) -> bool:
    """Whether the first code of rows (N, 2) determines the second, and not by accident."""
    n, different, first = len(pair), len(pair.unique(dim=0)), len(pair[:, 0].unique())
    share = pair[:, 1].unique(return_counts=True)[1].double() / n
    agree = float(share.square().sum())
    return different == first and agree < 1 and (n - first) * math.log(agree) < math.log(CHANCE)


# -- rows ----------------------------------------------------------------------------------------------------------


def comparable(columns: Sequence[Column], cells: Tensor) -> Tensor:
    """Cells (N, C) as they are written: numbers with their decimals, dates in seconds."""
    parts = []
    for column, values in zip(columns, cells.unbind(1), strict=True):
        if column.kind == "date":
            values = (values * (1 if "%S" in column.date_format else DAY)).round()
        elif column.kind == "number":
            values = values.round(decimals=column.decimals)
        parts.append(values)
    return torch.stack(parts, 1)


def breaks(rule: Constraint, columns: Sequence[Column], cells: Tensor) -> Tensor:
    """Rows (N, C) that do not obey one constraint, bool (N,); of equal rows, all but the first break `unique`."""
    names = [column.name for column in columns]
    places = [names.index(name) for name in rule.columns]
    if rule.kind == "fixed":
        allowed = torch.tensor(rule.allowed)
        every, which = torch.cat([allowed, codes(cells[:, places])]).unique(dim=0, return_inverse=True)
        known = torch.zeros(len(every), dtype=torch.bool).index_fill(0, which[: len(allowed)], True)
        return ~known[which[len(allowed) :]]
    of = [columns[place] for place in places]
    values = comparable(of, cells[:, places])
    if rule.kind == "unique":
        wrong = torch.zeros(len(values), dtype=torch.bool)
        given = (~values.isnan().any(1)).nonzero()[:, 0]
        if len(given):
            every, which = values[given].unique(dim=0, return_inverse=True)
            first = torch.full((len(every),), len(given)).scatter_reduce(0, which, torch.arange(len(given)), "amin")
            wrong[given] = first[which] != torch.arange(len(given))
        return wrong
    if rule.kind == "order":
        low, high = values.unbind(1)
    else:
        limit = comparable(of, torch.full((1, 1), rule.value, dtype=torch.float64)) if of[0].kind == "date" else None
        fixed = torch.full_like(values[:, 0], rule.value) if limit is None else limit[0].expand(len(values))
        low, high = (fixed, values[:, 0]) if rule.kind == "at_least" else (values[:, 0], fixed)
    return (low >= high) if rule.strict else (low > high)  # a comparison with NaN is false


def broken(space: Table, x: Tensor) -> Tensor:
    """Encoded rows (N, F) that break any constraint of their table, bool (N,), on the CPU."""
    codec, wrong = TableCodec(space), torch.zeros(len(x), dtype=torch.bool)
    cells = codec.decode(x)
    for rule in space.constraints:
        wrong |= breaks(rule, codec.columns, cells)
    return wrong


def constrained(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a method `sample(n, generator=...)` of a model of tables return rows that obey all constraints.

    Rows that do not obey are drawn again (rejection). So rows have the model's distribution, given that they obey.
    Without constraints, nothing is changed.

    Raises:
        ZooError: too few rows obey after `ROUNDS` rounds.
    """

    @wraps(sample)
    def drawn(self: Any, n: int, *, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        space: Table = self.spec.x
        if not space.constraints:
            return sample(self, n, generator=generator, **options)
        again = fork(generator, "constraints")
        x, total = sample(self, n, generator=generator, **options), n
        for number in range(ROUNDS):
            x = x[~broken(space, x).to(x.device)]
            if len(x) >= n:
                return x[:n]
            more = max(2 * (n - len(x)), LEAST_DRAWN)
            x = torch.cat([x, sample(self, more, generator=fork(again, str(number)), **options)])
            total += more
        x = x[~broken(space, x).to(x.device)]
        if len(x) >= n:
            return x[:n]
        learned = [column for column in space.columns if column.kind != "key"]
        rules = "; ".join(text_of(rule, learned) for rule in space.constraints)
        raise ZooError(
            f"data.constraints={rules}: of {total:,} drawn rows, only {len(x):,} obey, and n={n:,}. Train for longer, "
            "sample fewer rows, or leave a constraint out."
        )

    return drawn
