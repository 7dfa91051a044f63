"""How time and memory of a training step grow with a setting: `zoo bench --grow data.batch_size=32,64,128`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from zoo.errors import ZooError

SIDE, MARGIN = 420, 60  # pixels of a panel, and of the space around it
CURVES = (("ms", "ms a step"), ("step_mb", "MB a step"))


def parse(text: str) -> tuple[str, list[float]]:
    """`data.batch_size=32,64,128` -> the setting and its values.

    Raises:
        ZooError: fewer than two values, or some that are no positive numbers.
    """
    setting, _, listed = text.partition("=")
    try:
        values = [float(value) for value in listed.split(",")]
    except ValueError:
        values = []
    if len(values) < 2 or min(values) <= 0 or not setting:
        raise ZooError(f"--grow {text} is no setting with values to compare: write --grow data.batch_size=32,64,128.")
    return setting, values


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of y ~ x^p: a line through the logarithms, by least squares."""
    a, b = [math.log(v) for v in x], [math.log(max(v, 1e-12)) for v in y]
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    above = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    return above / sum((p - mean_a) ** 2 for p in a)


def exponents(x: Sequence[float], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How time, memory and arithmetic of a step grow."""
    kept = {key: [row[key] for row in rows] for key in ("ms", "step_mb", "operations") if all(key in r for r in rows)}
    return {key: slope(x, values) for key, values in kept.items()}


def plot(setting: str, x: Sequence[float], rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Both curves over the setting, on logarithmic axes, as a PNG."""
    canvas = Image.new("RGB", (len(CURVES) * (SIDE + MARGIN) + MARGIN, SIDE + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for number, (key, title) in enumerate(CURVES):
        left, top = MARGIN + number * (SIDE + MARGIN), MARGIN
        pen.rectangle((left, top, left + SIDE, top + SIDE), outline="grey")
        y = [row[key] for row in rows]
        places = list(zip(_spread(x, left), [2 * top + SIDE - v for v in _spread(y, top)], strict=True))
        pen.line(places, fill="navy", width=2)
        for (a, b), across, up in zip(places, x, y, strict=True):
            pen.ellipse((a - 4, b - 4, a + 4, b + 4), fill="navy")
            pen.text((a - 10, top + SIDE + 6), f"{across:g}", fill="black")
            pen.text((a + 6, b + 4), f"{up:.3g}", fill="black")
        pen.text((left, top - 20), f"{title} ~ ({setting})^{slope(x, y):.2f}", fill="black")
    canvas.save(path, format="PNG")


def _spread(values: Sequence[float], start: int) -> list[float]:
    """Logarithms laid over a panel, with some room at both ends."""
    logs = [math.log(max(v, 1e-12)) for v in values]
    low, high = min(logs), max(logs)
    return [start + SIDE * (0.08 + 0.8 * (v - low) / ((high - low) or 1.0)) for v in logs]
