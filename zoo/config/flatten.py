"""Flatten nested settings."""

from collections.abc import Mapping
from typing import Any


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Convert nested settings to dotted keys; values that TensorBoard cannot display become text."""
    row: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            row |= flatten(value, f"{prefix}{key}.")
        else:
            row[f"{prefix}{key}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return row
