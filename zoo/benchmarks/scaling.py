"""Scaling of a training step's time and memory with a setting: `zoo bench --grow data.batch_size=32,64,128`."""

import math
from collections.abc import Sequence
from typing import Any

from zoo.core.errors import ZooError


def parse(text: str) -> tuple[str, list[float]]:
    """Parse `data.batch_size=32,64,128` into the setting and its values.

    Raises:
        ZooError: fewer than two values, or some that are not positive numbers.
    """
    setting, _, listed = text.partition("=")
    try:
        values = [float(value) for value in listed.split(",")]
    except ValueError:
        values = []
    if len(values) < 2 or min(values) <= 0 or not setting:
        raise ZooError(
            f"--grow {text}: not a setting with several positive values. Write --grow data.batch_size=32,64,128."
        )
    return setting, values


def log_log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent p of y ~ x^p by least squares on logarithms."""
    a, b = [math.log(v) for v in x], [math.log(max(v, 1e-12)) for v in y]
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    above = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    return above / sum((p - mean_a) ** 2 for p in a)


def exponents(x: Sequence[float], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Scaling exponents of time, memory and operations of a step."""
    kept = {key: [row[key] for row in rows] for key in ("ms", "step_mb", "operations") if all(key in r for r in rows)}
    return {key: log_log_slope(x, values) for key, values in kept.items()}
