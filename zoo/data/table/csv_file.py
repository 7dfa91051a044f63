"""Rows of numbers from a CSV file."""

import csv
import logging
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.listing import log_rank0
from zoo.data.loader import make_generator
from zoo.data.table.infer import check_size, to_number
from zoo.data.text.files import decode_file
from zoo.data.text.overlap import warn_of_shared

log = logging.getLogger(__name__)
DELIMITERS = ",;\t|"
QUOTED = re.compile(r'"[^"]*("|$)')
LEAST = 10  # rows: one in ten is for validation, and one in ten for testing


@register("data", "table")
class Table(DataModule):
    """Your own table of numbers: data=table data.path=FILE.csv data.label=COLUMN.

    The first line names the columns, unless all its fields are numbers. A sample is a vector of the numeric columns. A
    random 10 % of the rows are for validation and 10 % for testing; the split does not depend on `seed`.

    Args:
        path: file of values that are separated by commas, semicolons, tabs or vertical bars.
        label: column of the class, of numbers or texts.
        columns: columns of the vector; null is every column of numbers.
        batch_size: rows per batch.
        seed: seed of the training order.

    Raises:
        DataError: no such file or column, or values that are missing or not finite numbers.
    """

    def __init__(
        self,
        *,
        path: str,
        label: str | None = None,
        columns: Annotated[list[str], MinLen(1)] | None = None,
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.path, self.label, self.columns = user_path(path), label, columns

    @property
    def spec(self) -> DataSpec:
        """Vectors with named columns, and the classes."""
        names, x, classes, _ = self.content
        return DataSpec(Vector(x.shape[1], tuple(names)), Label(len(classes)) if classes else None, name="table")

    @cached_property
    def content(self) -> tuple[list[str], Tensor, list[str], Tensor]:
        """Names of the columns, vectors (N, D), names of the classes, and labels (N,)."""
        if not self.path.is_file():
            raise DataError(f"data.path={self.path}: no such file. Set data.path=FILE.csv.")
        heading, rows = read_table(self.path)
        if len(rows) < LEAST:
            raise DataError(
                f"data.path={self.path}: {counted(len(rows), 'row')}, too few to split. Give at least {LEAST}."
            )
        for setting, name in [("label", self.label), *(("columns", name) for name in self.columns or ())]:
            if name is not None and name not in heading:
                raise DataError(f"data.{setting}={name}: no such column in {self.path}. It has {', '.join(heading)}.")
        table = {name: [row[i] for _, row in rows] for i, name in enumerate(heading)}
        chosen = self.columns or [name for name in heading if name != self.label and numeric(table[name])]
        if rest := [name for name in heading if name not in chosen and name != self.label]:
            log_rank0(log.warning, f"data.path={self.path}: left out the columns {', '.join(rest)}.")
        if not chosen:
            raise DataError(f"data.path={self.path}: no column of numbers. Set data.columns=[NAME,...].")
        columns = [self.numbers(name, table[name], [line for line, _ in rows]) for name in chosen]
        classes = sorted(set(table[self.label])) if self.label is not None else []
        number = {name: i for i, name in enumerate(classes)}
        labels = [number[value] for value in table[self.label]] if self.label is not None else [0] * len(rows)
        return chosen, torch.tensor(columns, dtype=torch.float64).T.float(), classes, torch.tensor(labels)

    def numbers(self, name: str, values: list[str], lines: list[int]) -> list[float]:
        """Convert a column to numbers.

        Raises:
            DataError: a value that is not a finite number.
        """
        for value, line in zip(values, lines, strict=True):
            if not math.isfinite(to_number(value)):
                raise DataError(
                    f"data.columns: {value!r} in column {name}, line {line} of {self.path}, is not a finite number. "
                    "Write a number such as 1.5, remove the row, leave the column out, or choose data=mixed_table, "
                    "which reads missing values."
                )
        found = [float(value) for value in values]
        check_size(found, name, f"data.path={self.path}")
        return found

    def load(self) -> None:
        """Split the rows."""
        _, x, _, y = self.content
        order, held = torch.randperm(len(x), generator=make_generator(0)), len(x) // 10
        splits: list[Split] = [(x[i], y[i]) for i in (order[2 * held :], order[:held], order[held : 2 * held])]
        self.train, self.val, self.test = splits
        train, val, test = (list(map(tuple, part[0].tolist())) for part in splits)
        warn_of_shared(self.registered_name, train, {"validation": val, "test": test}, "rows")


def read_table(path: Path, setting: str = "data.path") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the names of the columns, and (number of the line, fields) of each row that is not blank.

    Args:
        path: the file.
        setting: name of the setting that gives it, for messages.

    Raises:
        DataError: a row has another number of fields than the first, or a line end within a field without quotes.
    """
    lines = [line + "\n" for line in decode_file(path).split("\n")]
    first = QUOTED.sub("", next((line.strip() for line in lines if line.strip()), ""))
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, delimiter=max(DELIMITERS, key=first.count), skipinitialspace=True)
    try:
        every = [(reader.line_num, [field.strip() for field in row]) for row in reader]
    except csv.Error as error:
        raise DataError(f"{setting}={path}: line {reader.line_num} is not CSV ({error}). Repair it.") from None
    rows = [(line, row) for line, row in every if any(row)]
    if empty := [line for line, row in every if len(row) > 1 and not any(row)]:
        log_rank0(
            log.warning,
            f"{setting}={path}: left out {counted(len(empty), 'row')} of empty fields, the first in line {empty[0]}.",
        )
    if not rows:
        raise DataError(f"{setting}={path}: empty. Add rows of numbers.")
    width = len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise DataError(
                f"{setting}={path}: line {line} has {counted(len(row), 'field')}, and the first has {width}. Repair it."
            )
    if numeric(rows[0][1]):
        return [f"column_{i + 1}" for i in range(width)], rows
    heading = rows[0][1]
    if twice := sorted({name for name in heading if heading.count(name) > 1}):
        raise DataError(f"{setting}={path}: two columns are named {twice[0]!r}. Rename one of them.")
    return heading, rows[1:]


def numeric(values: list[str]) -> bool:
    """Whether at least one value, and every value but empty ones and NaN, is a number."""
    words = [value for value in values if value and value.lower() not in ("nan", "na", "null")]
    return bool(words) and not any(math.isnan(to_number(value)) for value in words)
