"""Types of columns: inferred from texts, or given; cells and scales."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.core.columns import Column
from zoo.core.errors import DataError
from zoo.core.registry import unknown_name_message

MISSING = frozenset({"", "nan", "na", "n/a", "null", "?"})  # in lower case
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d")
TYPES = ("number", "category", "date", "key")
FEW = 10  # different whole numbers of at most this many digits are categories
MAX_CATEGORIES = 1000
KNOTS = 64  # quantiles of a scale
OFTEN = 5  # rows with one number, from which it may get its own share
MAX_GRID = 2**18  # cells; a float has room for the scores of so many
MAX_DECIMALS = 15
DAY = 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NORMAL = NormalDist()
Texts = Sequence[str]
LARGEST = 1.8e19  # number, whose square is a 32-bit float


def is_missing(text: str) -> bool:
    """Whether a field stands for a missing value."""
    return text.strip().lower() in MISSING


def infer_type(texts: Texts) -> str:
    """Type of a column: number, category, date or key.

    Whole numbers of at most `FEW` values are categories, such as codes. Texts that differ in every row are a key.
    """
    given = [text for text in texts if not is_missing(text)]
    if not given:
        return "category"
    if all(math.isfinite(to_number(text)) for text in given):
        codes = set(given)
        return "category" if len(codes) <= FEW and all(text.lstrip("+-").isdecimal() for text in codes) else "number"
    if date_format(given):
        return "date"
    return "key" if len(set(texts)) == len(texts) else "category"


def check_inferred(name: str, kind: str, texts: Texts, where: str) -> None:
    """Refuse numbers and dates that would be learned as categories, because of how they are written.

    Raises:
        DataError: decimal commas, or dates in several formats.
    """
    given = {text for text in texts if not is_missing(text)}
    if kind not in ("category", "key") or not given:
        return
    remedy = f"or set data.types=[{name}:{kind}] if they are texts."
    if all(DECIMAL_COMMA.fullmatch(text) for text in given) and any("," in text for text in given):
        example = next(text for text in sorted(given) if "," in text)
        raise DataError(f"{where}: column {name} has decimal commas ({example}). Write decimal points, {remedy}")
    if all(date_format([text]) for text in given):
        raise DataError(f"{where}: column {name} has dates in several formats. Write one, such as 2026-12-31, {remedy}")


def to_number(text: str) -> float:
    """Convert text to a number, NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def date_format(texts: Texts) -> str:
    """The first known format in which all texts are dates; empty if there is none."""
    for known in DATES:
        try:
            for text in set(texts):
                datetime.strptime(text, known)
        except ValueError:
            continue
        return known
    return ""


def date_cell(text: str, how: str) -> float:
    """Days since 1970, or seconds where the format has a time.

    Raises:
        ValueError: no date of this format.
    """
    return (datetime.strptime(text, how).replace(tzinfo=UTC) - EPOCH).total_seconds() / (1 if "%S" in how else DAY)


def field_of(column: Column, cell: float) -> str:
    """A cell as text: empty for a missing one."""
    if cell != cell:  # NaN
        return ""
    if column.kind == "category":
        return column.categories[int(cell)]
    if column.kind == "date":
        seconds = round(cell * (1 if "%S" in column.date_format else DAY))
        return (EPOCH + timedelta(seconds=seconds)).strftime(column.date_format)
    return f"{cell:.{column.decimals}f}"


def cells_of(name: str, kind: str, texts: Texts, where: str) -> tuple[NDArray[np.float64], Column]:
    """Cells (N,) of a column, NaN for missing ones, and the column without its scale.

    Args:
        name: of the column.
        kind: its type.
        texts: fields of all rows.
        where: the setting and file, for messages.

    Raises:
        DataError: an unknown type, or fields that do not fit it.
    """
    if kind not in TYPES:
        raise DataError(f"{where}: {unknown_name_message('type', kind, list(TYPES))}.")
    gone = np.array([is_missing(text) for text in texts])
    given = [text for text in texts if not is_missing(text)]
    missing = bool(gone.any())
    if kind == "key":
        return np.full(len(texts), np.nan), Column(name, "key")
    if not given:
        raise DataError(f"{where}: all values of column {name} are missing. Set data.columns=[NAME,...] without it.")
    cells = np.full(len(texts), np.nan)
    if kind == "category":
        found = sorted(set(given), key=lambda text: (to_number(text), text) if numeric(given) else (0.0, text))
        if len(found) > MAX_CATEGORIES:
            raise DataError(
                f"{where}: column {name} has {len(found):,} categories, and {MAX_CATEGORIES:,} are allowed. "
                f"Leave it out, or make it a key: data.types=[{name}:key]."
            )
        code = {text: i for i, text in enumerate(found)}
        cells[~gone] = [code[text] for text in given]
        return cells, Column(name, "category", tuple(found), missing)
    if kind == "date":
        how = date_format(given)
        if not how:
            bad = next((t for t in given if not date_format([t])), given[0])
            raise DataError(f"{where}: {bad!r} in column {name} is not a date as the others. Write 2026-12-31.")
        times = {text: date_cell(text, how) for text in set(given)}
        cells[~gone] = [times[text] for text in given]
        column = Column(name, "number", low=cells[~gone].min(), high=cells[~gone].max(), knots=(0, 1), scores=(0, 1))
        return cells, replaced(column, kind="date", missing=missing, step=1.0, date_format=how)
    values = [to_number(text) for text in given]
    if strange := [text for text, value in zip(given, values, strict=True) if not math.isfinite(value)]:
        raise DataError(
            f"{where}: {strange[0]!r} in column {name} is not a finite number. Repair it, or set "
            f"data.types=[{name}:category]."
        )
    check_size(values, name, where)
    cells[~gone] = values
    column = Column(name, "number", missing=missing, low=min(values), high=max(values), knots=(0, 1), scores=(0, 1))
    decimals = max(map(decimals_of, given))
    return cells, replaced(column, decimals=decimals, step=10.0**-decimals)


def check_size(values: Sequence[float], name: str, where: str) -> None:
    """Check that a column of numbers fits into 32-bit floats, with their squares.

    Raises:
        DataError: it does not.
    """
    most = max(values, key=abs, default=0.0)
    if abs(most) > LARGEST:
        raise DataError(
            f"{where}: {most:g} in column {name} is too large for 32-bit floats. Change its unit, such as to millions, "
            "or leave the column out."
        )


def numeric(texts: Texts) -> bool:
    """Whether all texts are finite numbers."""
    return all(math.isfinite(to_number(text)) for text in texts)


def decimals_of(text: str) -> int:
    """Digits after the point, at most `MAX_DECIMALS`."""
    digits, _, exponent = text.lower().partition("e")
    after = len(digits.partition(".")[2]) - (int(exponent) if exponent else 0)
    return min(max(after, 0), MAX_DECIMALS)


def scaled(column: Column, cells: NDArray[np.float64]) -> Column:
    """Add the scale to a column of numbers, from training cells (N,): quantiles to standard normal scores.

    On a grid, a knot is the border of a cell, and its score that of the share of smaller numbers. The range of the
    column is that of all its data, so that every row can be encoded.
    """
    if not column.numeric:
        return column
    values = np.sort(cells[~np.isnan(cells)])
    if column.step and (column.high - column.low) / column.step >= MAX_GRID:
        column = replaced(column, step=0.0)
    t = (values - column.low) / column.unit
    last = (column.high - column.low) / column.unit
    n = max(len(t), 1)
    picked = np.unique(t[np.linspace(0, len(t) - 1, min(KNOTS, n)).round().astype(int)]) if len(t) else np.zeros(1)
    if column.step:
        t, last = t.round(), round(last)
        if last < KNOTS:  # every cell has its own share
            knots = np.arange(last + 2) - 0.5
        else:  # frequent numbers have their own share, and others that of their neighbours
            different, counts = np.unique(t, return_counts=True)
            often = different[counts >= max(OFTEN, n / KNOTS)]
            knots = np.unique(np.concatenate([picked.round() + 0.5, often - 0.5, often + 0.5, [-0.5, last + 0.5]]))
        share = np.searchsorted(t, knots) / n
    else:
        knots = np.unique(np.concatenate([picked, [0.0, max(last, 1.0)]]))
        share = (np.searchsorted(t, knots, "left") + np.searchsorted(t, knots, "right")) / (2 * n)
    # Half an observation is at each end. Knots between which there is nothing get a little room.
    share = np.clip(share, 0.5 / n, 1 - 0.5 / n)
    share = (n * share + (knots - knots[0] + 1) / (knots[-1] - knots[0] + 2)) / (n + 1)
    scores = [NORMAL.inv_cdf(p) for p in share.tolist()]
    keep = [0, *(i for i in range(1, len(knots)) if scores[i] - scores[i - 1] > 1e-6)]
    return replaced(column, knots=tuple(knots[keep].tolist()), scores=tuple(scores[i] for i in keep))


def replaced(column: Column, **values: object) -> Column:
    """A column with other values; numbers of NumPy become plain ones."""
    given: dict[str, Any] = {**vars(column), **values}
    return Column(**{k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()})
