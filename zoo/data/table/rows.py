"""Datamodule of rows of mixed columns, and rows as texts."""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from annotated_types import MinLen
from torch import Tensor

from zoo.core.columns import Column, write_columns
from zoo.core.constraints import Constraint, write_constraints
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import unknown_name_message
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import make_generator
from zoo.data.table.constraints import read_rules, text_of
from zoo.data.table.infer import (
    TYPES,
    cells_of,
    check_inferred,
    date_cell,
    field_of,
    infer_type,
    is_missing,
    scaled,
    to_number,
)
from zoo.nn.blocks.table_codec import TableCodec

LEAST = 10  # rows: one in ten is for validation, and one in ten for testing
Texts = dict[str, list[str]]  # fields of all rows, by the name of their column


class Rows(DataModule):
    """Rows of mixed columns, which a subclass reads as texts.

    A random 10 % of the rows are for validation and 10 % for testing; the split does not depend on `seed`. Scales of
    numbers are those of the training rows; categories and ranges are those of all rows.

    Args:
        types: types where the inferred one is wrong, such as [rooms:number,code:key]; also category and date.
        columns: columns to learn; null is every column.
        target: column that a classifier or regression predicts in `zoo evaluate`; null is the last one.
        constraints: rules that samples obey; see `zoo.data.table.constraints.read_rules`.
        batch_size: rows per batch.
        seed: seed of the training order.

    Raises:
        DataError: no such column, values that do not fit their type, too few rows, or a constraint that a row breaks.
    """

    where = "data.types"  # a setting, for messages

    def __init__(
        self,
        *,
        types: Annotated[list[str], MinLen(1)] | None = None,
        columns: Annotated[list[str], MinLen(1)] | None = None,
        target: str | None = None,
        constraints: Annotated[list[str], MinLen(1)] | None = None,
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.columns, self.asked_target, self.asked_rules = columns, target, constraints or []
        for word in types or ():
            if ":" not in word:
                raise DataError(f"data.types=[{word}]: not a column and its type. Write [NAME:{'|'.join(TYPES)}].")
        self.types = {name: kind for name, _, kind in (word.rpartition(":") for word in types or ())}

    def read(self) -> Texts:
        """Fields of all rows by column, in the order of the columns."""
        raise NotImplementedError

    @property
    def spec(self) -> DataSpec:
        """Rows with their columns."""
        columns = write_columns(self.content[0])
        return DataSpec(Table(columns, write_constraints(self.constraints)), name=self.registered_name)

    @cached_property
    def constraints(self) -> list[Constraint]:
        """Rules that all rows obey.

        Raises:
            DataError: see `zoo.data.table.constraints.read_rules`.
        """
        every, cells = self.content
        columns = [column for column in every if column.kind != "key"]
        rules = read_rules(self.asked_rules, columns, cells)
        if self.asked_rules:
            self.details["constraints"] = ", ".join(text_of(rule, columns) for rule in rules) or "none found"
        return rules

    @property
    def target(self) -> str:
        """Column that is predicted from the others."""
        learned = [column.name for column in self.content[0] if column.kind != "key"]
        return self.asked_target or learned[-1]

    @property
    def order(self) -> Tensor:
        """Rows in random order: a tenth for validation, a tenth for testing, the rest for training."""
        return torch.randperm(len(self.content[1]), generator=make_generator(0))

    @cached_property
    def content(self) -> tuple[tuple[Column, ...], Tensor]:
        """Columns, and the cells (N, C) of those that are not keys.

        Raises:
            DataError: see the class.
        """
        texts = self.read()
        self.check_names(list(texts))
        texts = {name: texts[name] for name in self.columns or texts}
        size = len(next(iter(texts.values())))
        if size < LEAST:
            raise DataError(f"{self.where}: {counted(size, 'row')}, too few to split. Give at least {LEAST}.")
        kinds = {name: self.types.get(name) or infer_type(fields) for name, fields in texts.items()}
        for name in kinds.keys() - self.types.keys():
            check_inferred(name, kinds[name], texts[name], self.where)
        read = [cells_of(name, kinds[name], fields, self.where) for name, fields in texts.items()]
        training = torch.randperm(size, generator=make_generator(0))[2 * (size // 10) :].numpy()
        columns = tuple(scaled(column, cells[training]) for cells, column in read)
        learned = [cells for cells, column in read if column.kind != "key"]
        if not learned:
            raise DataError(f"{self.where}: all columns are keys. Set a type: data.types=[NAME:category].")
        if self.asked_target in [c.name for c in columns if c.kind == "key"]:
            raise DataError(f"data.target={self.asked_target}: a key cannot be predicted. Choose another column.")
        self.details["columns"] = described(columns)
        return columns, torch.from_numpy(np.stack(learned, 1))

    def check_names(self, heading: Sequence[str]) -> None:
        """Check that the named columns exist.

        Raises:
            DataError: one does not.
        """
        given = [("types", name) for name in self.types] + [("columns", name) for name in self.columns or ()]
        for setting, name in [*given, ("target", self.asked_target)]:
            if name is not None and name not in heading:
                raise DataError(f"data.{setting}={name}: no such column. There are {', '.join(heading)}.")
        if self.columns and self.asked_target not in (None, *self.columns):
            raise DataError(f"data.target={self.asked_target}: data.columns leaves it out. Add it there.")

    def load(self) -> None:
        """Encode and split the rows."""
        columns, cells = self.content
        x = TableCodec(Table(write_columns(columns))).encode(cells)
        y, order, held = torch.zeros(len(x), dtype=torch.int64), self.order, len(x) // 10
        splits: list[Split] = [(x[i], y[i]) for i in (order[2 * held :], order[:held], order[held : 2 * held])]
        self.train, self.val, self.test = splits


def described(columns: Sequence[Column]) -> str:
    """Types and ranges of columns in one line."""
    parts = []
    for column in columns:
        if column.kind == "category":
            what = f"{len(column.categories)} categories"
        elif column.kind == "date":
            what = f"dates {field_of(column, column.low)} to {field_of(column, column.high)}"
        elif column.kind == "number":
            what = f"{field_of(column, column.low)} to {field_of(column, column.high)}"
        else:
            what = "key, not learned"
        parts.append(f"{column.name} ({what}{', some missing' if column.missing else ''})")
    return ", ".join(parts)


def cell_of(column: Column, text: str) -> float:
    """A field of a further row as a cell: the inverse of `field_of`; NaN for a missing one.

    Raises:
        DataError: a field that the training data cannot have.
    """
    if is_missing(text):
        if not column.missing:
            raise DataError(f"{column.name}: no value is missing in the training data. Give one.")
        return float("nan")
    if column.kind == "category":
        if text not in column.categories:
            raise DataError(f"{unknown_name_message(f'value of {column.name}', text, list(column.categories))}.")
        return float(column.categories.index(text))
    if column.kind == "date":
        try:
            cell = date_cell(text.strip(), column.date_format)
        except ValueError:
            example = field_of(column, column.low)
            raise DataError(f"{column.name}={text}: not a date. Write it as {example}.") from None
    else:
        cell = to_number(text)
    if not column.low <= cell <= column.high:
        low, high = field_of(column, column.low), field_of(column, column.high)
        raise DataError(f"{column.name}={text}: not within the training data, {low} to {high}. Choose another value.")
    return cell


def encoded_cells(space: Table, fields: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """Fields of some columns of a row -> an encoded row (1, F), and a mask (1, F) of the columns without a field.

    Raises:
        DataError: no such column, a key, or a field that does not fit its column.
    """
    codec = TableCodec(space)
    names = [column.name for column in codec.columns]
    for name in fields:
        if name not in names:
            raise DataError(f"{unknown_name_message('learned column', name, names)}.")
    cells = [cell_of(c, fields[c.name]) if c.name in fields else c.low for c in codec.columns]
    hidden = [names[block.column] not in fields for block in codec.blocks for _ in range(block.size)]
    return codec.encode(torch.tensor([cells], dtype=torch.float64)), torch.tensor([hidden])


def texts_of(space: Table, x: Tensor) -> tuple[list[str], list[list[str]]]:
    """Heading and fields of encoded rows (N, F), with the columns of the data; keys count from 1."""
    cells = TableCodec(space).decode(x).tolist()
    learned = [column for column in space.columns if column.kind != "key"]
    rows = []
    for number, row in enumerate(cells, 1):
        fields: Mapping[str, str] = {c.name: field_of(c, cell) for c, cell in zip(learned, row, strict=True)}
        rows.append([fields.get(column.name, str(number)) for column in space.columns])
    return [column.name for column in space.columns], rows


def to_csv(space: Table, x: Tensor) -> str:
    """Encoded rows (N, F) as CSV, with the heading."""
    heading, rows = texts_of(space, x)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return out.getvalue()
