"""Rows of mixed columns: as CSV, and as a picture of every column."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.core.columns import Column
from zoo.core.registry import register
from zoo.core.spaces import Table
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.data.table.infer import field_of
from zoo.data.table.rows import to_csv
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.nn.blocks.table_codec import TableCodec
from zoo.viz.images import Picture
from zoo.viz.render import SEED, Csv, Renderer, Shown, View, held_out

BARS = 16  # of a number or a long list of categories
WIDTH, HEIGHT, MARGIN = 220, 120, 18  # of one chart, pixels
ACROSS = 4  # charts in a row
REAL, FAKE, GROUND, INK = (150, 150, 150), (200, 80, 40), (255, 255, 255), (40, 40, 40)
N_COMPARED = 500


@register("renderer", "table")
class TableRenderer(Renderer):
    """Rows as CSV, with the columns of the data."""

    n_samples = 100
    default_suffix = ".csv"
    space: Table

    def render(self, x: Tensor, columns: int | None = None) -> Shown:
        """Rows (B, F) as CSV."""
        return Csv(to_csv(self.space, x))


@register("view", "columns")
class ColumnView(View):
    """Bar charts of all columns: held-out rows in grey, synthetic rows in colour."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that sample rows of columns."""
        return supports(model, SupportsSampling) and isinstance(model.spec.x, Table)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """One picture."""
        codec = TableCodec(model.spec.x)
        real = codec.decode(held_out(data, N_COMPARED).x)
        fake = codec.decode(model.sample(N_COMPARED, generator=make_generator(SEED, 2)))
        return {"columns": charts(codec.columns, real, fake)}


def charts(columns: tuple[Column, ...], real: Tensor, fake: Tensor) -> Picture:
    """Draw a bar chart for each column of cells (N, C) and (M, C): real in grey, synthetic in colour."""
    across = min(len(columns), ACROSS)
    picture = Image.new("RGB", (across * WIDTH, math.ceil(len(columns) / across) * HEIGHT), GROUND)
    draw = ImageDraw.Draw(picture)
    for number, column in enumerate(columns):
        left, top = number % across * WIDTH, number // across * HEIGHT
        shares = [shares_of(column, cells[:, number]) for cells in (real, fake)]
        first, last = ends(column)
        draw.text((left + 6, top + 2), column.name[:34], fill=INK)
        draw.text((left + 6, top + HEIGHT - 14), f"{first} ... {last}"[:36], fill=INK)
        most = max(max(map(max, shares)), 1e-9)
        wide = (WIDTH - 12) / len(shares[0])
        floor, high = top + HEIGHT - MARGIN, HEIGHT - 2 * MARGIN
        for bar, pair in enumerate(zip(*shares, strict=True)):
            for which, (share, colour) in enumerate(zip(pair, (REAL, FAKE), strict=True)):
                x = left + 6 + (bar + 0.1 + 0.4 * which) * wide
                draw.rectangle((x, floor - share / most * high, x + 0.4 * wide, floor), fill=colour)
    return np.asarray(picture)


def shares_of(column: Column, cells: Tensor) -> list[float]:
    """Share of each bar of a column (N,); the last is that of missing values, if there are any."""
    given = cells[~cells.isnan()]
    if column.kind == "category":
        counts = torch.bincount(given.long(), minlength=len(column.categories)).tolist()
        counts = [*counts[: BARS - 1], sum(counts[BARS - 1 :])] if len(counts) > BARS else counts
    else:
        place = (given - column.low) / ((column.high - column.low) or 1.0)  # in [0, 1]: numbers may be huge
        counts = np.histogram(place.numpy(), BARS, (0.0, 1.0))[0].tolist()
    counts += [int(cells.isnan().sum())] * column.missing
    return [count / max(len(cells), 1) for count in counts]


def ends(column: Column) -> tuple[str, str]:
    """First and last value on the axis."""
    gone = "(missing)" if column.missing else ""
    if column.kind == "category":
        return column.categories[0], gone or column.categories[-1]
    return field_of(column, column.low), f"{field_of(column, column.high)} {gone}".strip()
