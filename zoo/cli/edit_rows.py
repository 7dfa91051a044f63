"""Fill in the empty cells of a table by a trained model, from file to file."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.cli.draw import parse_options
from zoo.core.counted import counted
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Table
from zoo.data.loader import make_generator
from zoo.data.table.cells import cell_of
from zoo.data.table.constraints import breaks
from zoo.data.table.infer import field_of, is_missing
from zoo.data.table.mixed import read_columns
from zoo.data.table.rows import Texts
from zoo.hub.pretrained import default_output
from zoo.interop.loading import load
from zoo.io.atomic import write_text
from zoo.models.ability import supports
from zoo.models.image_abilities import SupportsInpainting
from zoo.nn.blocks.table_codec import TableCodec

TRIES = 50  # for a row whose drawn cells are missing values


def fill_rows(
    run: str | Path,
    path: Path,
    *,
    options: Sequence[str] = (),
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Fill in the empty cells of a table, each drawn given the other cells of its row.

    Given cells, keys and further columns stay as they are. A row in which a missing value was drawn is drawn again, at
    most `TRIES` times. So is a row that breaks a constraint of the data, except `unique`. Cells that are still missing
    stay empty. Their number is printed, and that of rows that still break a constraint.

    Args:
        run: run folder, checkpoint file, or pretrained or published model of tables.
        path: .csv with a heading, or .parquet, with all columns that the model learns.
        options: KEY=VALUE, keyword-only parameters of the model's `inpaint`.
        seed: equal seeds give equal cells.
        out: a .csv file; None writes into the run's `samples/`.
        device: device of the model.

    Returns:
        The file.

    Raises:
        ConfigError: a model without the ability, an unknown option or file format.
        DataError: no such file, a column that is missing, or a cell that the model does not have.
    """
    model: Any = load(run, device)
    if not isinstance(model.spec.x, Table) or not supports(model, SupportsInpainting):
        raise ConfigError(
            f"--rows={path}: {model.registered_name} does not fill in rows. Use a model with the ability inpaint."
            if isinstance(model.spec.x, Table)
            else f"--rows={path}: {model.registered_name} generates {model.spec.x}. Use a model of tables."
        )
    file = out or default_output(run, "samples", f"filled-seed-{seed}.csv")
    if file.suffix != ".csv":
        raise ConfigError(f"--out={file}: rows are CSV. Use a name that ends in .csv.")
    if out is None and file.parent.is_symlink():
        raise ConfigError(f"{file.parent} is a link, and the rows would be written to its target. Use --out.")
    settings = parse_options(model.inpaint, options, model.registered_name)
    texts = read_columns(path, "--rows")
    codec = TableCodec(model.spec.x)
    cells, empty = read_cells(codec, texts, path)
    filled, left = fill(model, codec, cells, empty, make_generator(seed), **settings)
    for index, column in enumerate(codec.columns):
        fields = texts[column.name]
        for row in empty[:, index].nonzero()[:, 0].tolist():
            fields[row] = field_of(column, filled[row, index].item())
    write(file, texts)
    if left:
        print(f"zoo: {counted(left, 'cell')} stayed empty: a missing value is likely there.", file=sys.stderr)
    filled_rows = empty.any(1)
    if n := int(breaking(model, codec, filled[filled_rows]).sum()):
        print(
            f"zoo: {counted(n, 'filled row')} still {'breaks' if n == 1 else 'break'} data.constraints after {TRIES} "
            "tries. Compare the given cells with the rules.",
            file=sys.stderr,
        )
    print(file)
    return file


def read_cells(codec: TableCodec, texts: Texts, path: Path) -> tuple[Tensor, Tensor]:
    """Cells (N, C) float64 of the model's columns, and which are empty, bool (N, C).

    An empty cell has some value of its column.

    Raises:
        DataError: a column that is missing, or a cell that the model does not have.
    """
    if absent := [column.name for column in codec.columns if column.name not in texts]:
        raise DataError(f"--rows={path}: column {absent[0]} is missing. Add it, with empty cells.")
    n = len(next(iter(texts.values())))
    cells = torch.zeros(n, len(codec.columns), dtype=torch.float64)
    empty = torch.zeros(n, len(codec.columns), dtype=torch.bool)
    for index, column in enumerate(codec.columns):
        for row, text in enumerate(texts[column.name]):
            empty[row, index] = is_missing(text)
            if empty[row, index]:
                cells[row, index] = column.low if column.numeric else 0.0
            else:
                cells[row, index] = cell_of(codec, index, text, f"--rows={path}, row {row + 1}")
    return cells, empty


def fill(
    model: Any, codec: TableCodec, cells: Tensor, empty: Tensor, generator: torch.Generator, **settings: Any
) -> tuple[Tensor, int]:
    """Cells (N, C) with drawn values where they are empty, and the number of those that stay missing."""
    x, mask = codec.encode(cells), torch.zeros(len(cells), codec.width, dtype=torch.bool)
    for block in codec.blocks:
        mask[:, block.places] = empty[:, block.column : block.column + 1]
    filled = cells.clone()
    rows = empty.any(1).nonzero()[:, 0]
    for _ in range(TRIES):
        if not len(rows):
            break
        with torch.no_grad():
            drawn = model.inpaint(
                x[rows].to(model.device), mask[rows].to(model.device), generator=generator, **settings
            )
        filled[rows] = torch.where(empty[rows], codec.decode(drawn), cells[rows])
        rows = rows[filled[rows].isnan().any(1) | breaking(model, codec, filled[rows])]
    return filled, int(filled.isnan().sum())


def breaking(model: Any, codec: TableCodec, cells: Tensor) -> Tensor:
    """Rows of cells (N, C) that break a constraint of the model's data, except `unique`: bool (N,)."""
    wrong = torch.zeros(len(cells), dtype=torch.bool)
    for rule in model.spec.x.constraints:
        if rule.kind != "unique":
            wrong |= breaks(rule, codec.columns, cells)
    return wrong


def write(file: Path, texts: Texts) -> None:
    """Write columns as CSV, with the heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(texts)
    writer.writerows(zip(*texts.values(), strict=True))
    write_text(file, out.getvalue())
