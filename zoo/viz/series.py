"""Time series as line charts, and forecasts as fan charts."""

import csv
import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Series
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.io.atomic import write_text
from zoo.models.abilities import SupportsForecasting
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.viz.images import Picture
from zoo.viz.render import SEED, Renderer, Shown, View, held_out

WIDTH, HEIGHT, MARGIN = 240, 130, 16  # of one chart, pixels; the margin has the text
GROUND, FRAME, INK, TRUTH = (255, 255, 255), (200, 200, 200), (40, 40, 40), (120, 120, 120)
COLOURS = [(200, 80, 40), (50, 90, 180), (60, 140, 70), (150, 70, 150), (170, 130, 20), (30, 140, 150)]
BANDS = [((0.05, 0.95), (250, 222, 205)), ((0.25, 0.75), (240, 180, 145))]  # central intervals of a forecast
WINDOWS, PATHS = 9, 100  # of the fan charts
Line = tuple[Tensor, tuple[int, int, int]]  # values (T,) and their colour


@register("renderer", "series")
class SeriesRenderer(Renderer):
    """Line charts of windows, one line for each column, each column in its own range."""

    n_samples, per_page, has_singles = 16, 64, True
    formats = (".csv",)
    space: Series

    def render(self, x: Tensor, columns: int | None = None) -> Picture:
        """Charts of windows (B, T, D) in rows."""
        low, high = limits(x)
        return arranged([chart(coloured(one), low, high, self.space.columns) for one in x], columns)

    def single(self, x: Tensor) -> Picture:
        """Chart of one window (T, D)."""
        return self.render(x[None])

    def compare(self, x: Tensor, y: Tensor) -> Picture:
        """Data in grey, and reconstructions in colour."""
        low, high = limits(torch.cat([x.cpu(), y.cpu()]))
        pairs = zip(x, y, strict=True)
        lines = ([(line, TRUTH) for line in a.unbind(1)] + coloured(b) for a, b in pairs)
        return arranged([chart(list(some), low.repeat(2), high.repeat(2), self.space.columns) for some in lines])

    def walks(self, x: Tensor) -> Picture:
        """One row for each interpolation (N, steps, T, D)."""
        return self.render(x.flatten(0, 1), x.shape[1])

    def write(self, x: Tensor, path: Path) -> None:
        """Write windows (B, T, D) as CSV: number of the window, step, and the columns."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["window", "step", *self.space.columns])
        for number, window in enumerate(x.tolist()):
            writer.writerows([number, step, *(f"{v:.6g}" for v in row)] for step, row in enumerate(window))
        write_text(path, out.getvalue())


@register("view", "forecasts")
class ForecastView(View):
    """Forecasts of held-out windows: history, true future in grey, median, and intervals of 50 % and 90 %."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that forecast series."""
        return supports(model, SupportsForecasting) and isinstance(model.spec.x, Series)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """One picture."""
        space, batch = model.spec.x, held_out(data, WINDOWS)
        known = batch.y.to(model.device) if isinstance(model.spec.condition, Series) else None
        past = batch.x[:, : space.history].to(model.device)
        paths = model.forecast(past, space.horizon, PATHS, condition=known, generator=make_generator(SEED, 3)).cpu()
        return {"forecasts": arranged([fan(x, p, space.columns[0]) for x, p in zip(batch.x, paths, strict=True)])}


def fan(x: Tensor, paths: Tensor, name: str) -> Picture:
    """Fan chart of the first column of a window (T, D), with paths (n, horizon, D) of its last steps."""
    x, paths = x[:, 0].cpu().float(), paths[..., 0].float()
    history = len(x) - paths.shape[1]
    shown = torch.quantile(paths, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]), dim=0)  # (5, horizon)
    low, high = limits(torch.cat([x, shown.flatten()])[None, :, None])
    ends = history + torch.arange(paths.shape[1])
    bands = []
    for (lower, upper), (_, colour) in zip(((0, 4), (1, 3)), BANDS, strict=True):
        bands.append((ends, shown[lower], shown[upper], colour))
    blank = torch.full((history,), torch.nan)
    future = torch.cat([torch.full((max(history - 1, 0),), torch.nan), x[max(history - 1, 0) :]])
    lines: list[Line] = [(future, TRUTH), (x[:history], INK), (torch.cat([blank, shown[2]]), COLOURS[0])]
    return chart(lines, low.repeat(3), high.repeat(3), (name,), bands, length=len(x))


def limits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest finite value of each column of windows (B, T, D), each (D,)."""
    rows = x.detach().cpu().float().flatten(0, 1)
    low = rows.where(rows.isfinite(), torch.inf).amin(0)
    high = rows.where(rows.isfinite(), -torch.inf).amax(0)
    known = low <= high
    low, high = torch.where(known, low, 0.0), torch.where(known, high, 1.0)
    room = torch.maximum(0.04 * (high - low), 1e-3 * torch.maximum(high.abs(), low.abs()) + 1e-9)
    return low - room, high + room


def coloured(x: Tensor) -> list[Line]:
    """Columns of a window (T, D) with their colours."""
    return [(line, COLOURS[i % len(COLOURS)]) for i, line in enumerate(x.unbind(1))]


def chart(
    lines: list[Line],
    low: Tensor,
    high: Tensor,
    names: Sequence[str],
    bands: Sequence[tuple[Tensor, Tensor, Tensor, tuple[int, int, int]]] = (),
    length: int | None = None,
) -> Picture:
    """Draw lines between their limits, over bands (steps, lower, upper, colour) in the limits of the first line.

    A value that is not finite leaves a gap.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    draw = ImageDraw.Draw(picture)
    size = length or max(len(line) for line, _ in lines)
    floor, tall, wide = HEIGHT - 4, HEIGHT - 4 - MARGIN, (WIDTH - 9) / max(size - 1, 1)

    def place(step: float, value: float, number: int) -> tuple[float, float]:
        share = (value - float(low[number])) / float(high[number] - low[number])
        return 4 + step * wide, floor - min(max(share, 0.0), 1.0) * tall

    draw.rectangle((3, MARGIN - 1, WIDTH - 4, HEIGHT - 3), outline=FRAME)
    for steps, lower, upper, colour in bands:
        edge = [place(s, v, 0) for s, v in zip(steps.tolist(), upper.tolist(), strict=True)]
        back = [place(s, v, 0) for s, v in zip(steps.tolist(), lower.tolist(), strict=True)]
        if len(edge) > 1:
            draw.polygon([*edge, *reversed(back)], fill=colour)
    for number, (line, colour) in enumerate(lines):
        points = [(i, v) for i, v in enumerate(line.detach().cpu().float().tolist())]
        for (i, a), (j, b) in pairwise(points):
            if math.isfinite(a) and math.isfinite(b):
                draw.line((*place(i, a, number), *place(j, b, number)), fill=colour, width=1)
    title = f"{', '.join(names)}"[:24] + (f"  {float(low[0]):.3g} to {float(high[0]):.3g}" if len(names) == 1 else "")
    draw.text((5, 2), title, fill=INK)
    return np.asarray(picture)


def arranged(charts: list[Picture], columns: int | None = None) -> Picture:
    """Charts of one size in rows; None makes the picture about square."""
    across = min(columns or math.ceil(math.sqrt(len(charts))), len(charts))
    blank = np.full_like(charts[0], 255)
    rows = [charts[i : i + across] for i in range(0, len(charts), across)]
    return np.concatenate([np.concatenate([*row, *[blank] * (across - len(row))], 1) for row in rows])
