"""Cells that a user gives as text, such as "sex=male, age=30"."""

import csv

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.registry import unknown_name_message
from zoo.data.table.infer import date_cell, field_of, is_missing
from zoo.nn.blocks.table_codec import TableCodec


def given_rows(codec: TableCodec, where: str, n: int) -> tuple[Tensor, Tensor]:
    """n equal encoded rows (n, F) with the given cells, and a mask (n, F) of the places that are not given.

    A cell with a comma is in quotes, as in CSV: "city=Paris, Texas",age=40.

    Raises:
        DataError: not `COLUMN=VALUE`, an unknown or repeated column, an unknown category, or a number out of the
            column's range.
    """
    cells = torch.zeros(1, len(codec.columns), dtype=torch.float64)
    cells[0] = torch.tensor([column.low if column.numeric else 0.0 for column in codec.columns])
    hidden = torch.ones(1, codec.width, dtype=torch.bool)
    names = [column.name for column in codec.columns]
    given = set[str]()
    for word in fields_of(where):
        cuts = [(word[:i].strip(), word[i + 1 :].strip()) for i, sign in enumerate(word) if sign == "="]
        if not cuts:
            raise DataError(
                f"where={where}: {word.strip()!r} is not a cell. Write COLUMN=VALUE, in quotes if it has a comma: "
                '"COLUMN=VALUE, MORE".'
            )
        name, text = next((cut for cut in reversed(cuts) if cut[0] in names), cuts[0])  # names may have the sign
        if name not in names:
            raise DataError(f"where={where}: {unknown_name_message('column', name, names)}.")
        if name in given:
            raise DataError(f"where={where}: column {name} has two values. Give one.")
        given.add(name)
        index = names.index(name)
        cells[0, index] = cell_of(codec, index, text, f"where={where}")
        for block in codec.blocks:
            if block.column == index:
                hidden[:, block.places] = False
    return codec.encode(cells).repeat(n, 1), hidden.repeat(n, 1)


def rows_to_draw(codec: TableCodec, where: str, n: int) -> tuple[Tensor, Tensor]:
    """As `given_rows`; without a text no cell is given, and all places are hidden.

    Raises:
        DataError: see `given_rows`.
    """
    if where:
        return given_rows(codec, where, n)
    return torch.zeros(n, codec.width), torch.ones(n, codec.width, dtype=torch.bool)


def fields_of(where: str) -> list[str]:
    """Parts between commas outside quotes; one empty part if there is nothing.

    Raises:
        DataError: several lines.
    """
    try:
        return next(csv.reader([where], skipinitialspace=True), None) or [""]
    except csv.Error:
        raise DataError(f"where={where}: several lines. Write COLUMN=VALUE in one line.") from None


def cell_of(codec: TableCodec, index: int, text: str, where: str) -> float:
    """The cell that a text stands for; `where` is the setting and its value, for messages.

    Raises:
        DataError: see `given_rows`.
    """
    column = codec.columns[index]
    if is_missing(text):
        if not column.missing:
            raise DataError(f"{where}: no value of column {column.name} is missing in the data. Give a value.")
        return torch.nan
    if column.kind == "category":
        if text not in column.categories:
            known = list(column.categories)
            raise DataError(f"{where}: {unknown_name_message(f'category of {column.name}', text, known)}.")
        return float(column.categories.index(text))
    try:
        cell = date_cell(text, column.date_format) if column.kind == "date" else float(text)
    except ValueError:
        shown = field_of(column, column.low)
        raise DataError(f"{where}: {text!r} is not a {column.kind}. Write one such as {shown}.") from None
    if not column.low <= cell <= column.high:
        raise DataError(f"{where}: {text} is outside the range of column {column.name}. Give a value inside.")
    return cell
