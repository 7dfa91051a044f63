"""Pictures of curves."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.models.abilities import SupportsCurves
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.results import Curve
from zoo.viz.images import Picture
from zoo.viz.render import Shown, View

WIDTH, HEIGHT = 300, 220  # pixels of one curve with its margins
LEFT, TOP, RIGHT, BOTTOM = 48, 26, 12, 36  # margins
PAPER, INK, FRAME, MARK = "white", (42, 26, 110), (150, 150, 150), (214, 74, 72)


@register("view", "curves")
class CurvesView(View):
    """Curves of a model in one picture, such as its schedule."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that have curves."""
        return supports(model, SupportsCurves)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """One picture."""
        return {"curves": draw_curves(model.curves())}


def draw_curves(curves: list[Curve]) -> Picture:
    """Draw curves side by side, each in a frame of its smallest and largest values."""
    return np.concatenate([draw_curve(curve) for curve in curves], axis=1)


def draw_curve(curve: Curve) -> Picture:
    """Draw one curve, (HEIGHT, WIDTH, 3). Values that are not finite leave a gap."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    x, y = curve.x.double().cpu(), curve.y.double().cpu()
    (x_low, x_high), (y_low, y_high) = limits(x), limits(y)
    place = lambda v, low, high, start, end: start + (v - low) / (high - low) * (end - start)  # noqa: E731
    across = place(x, x_low, x_high, LEFT, WIDTH - RIGHT)
    up = place(y, y_low, y_high, HEIGHT - BOTTOM, TOP)
    draw.rectangle((LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM), outline=FRAME)
    good = x.isfinite() & y.isfinite()
    for i in torch.nonzero(good[1:] & good[:-1]).flatten().tolist():
        draw.line((float(across[i]), float(up[i]), float(across[i + 1]), float(up[i + 1])), INK, 2)
    for mark in () if curve.marks is None else curve.marks.tolist():
        nearest = int((x - mark).abs().argmin())
        centre = float(place(mark, x_low, x_high, LEFT, WIDTH - RIGHT)), float(up[nearest])
        draw.ellipse((centre[0] - 2, centre[1] - 2, centre[0] + 2, centre[1] + 2), MARK)
    draw.text((LEFT, TOP // 2), curve.name, "black", font, anchor="lm")
    draw.text(((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 10), curve.x_name, "black", font, anchor="mm")
    for value, where, anchor in (
        (y_high, (LEFT - 4, TOP), "rt"),
        (y_low, (LEFT - 4, HEIGHT - BOTTOM), "rb"),
        (x_low, (LEFT, HEIGHT - BOTTOM + 4), "lt"),
        (x_high, (WIDTH - RIGHT, HEIGHT - BOTTOM + 4), "rt"),
    ):
        draw.text(where, f"{value:.3g}", "black", font, anchor=anchor)
    return np.asarray(picture)


def limits(values: Tensor) -> tuple[float, float]:
    """Smallest and largest finite value, one apart if they are equal up to rounding."""
    finite = values[values.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return (low, high) if high - low > 1e-6 * max(abs(low), abs(high)) else (low - 0.5, high + 0.5)
