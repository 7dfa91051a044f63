"""JSON files of a folder."""

import json
from pathlib import Path
from typing import Any

from zoo.core.errors import CheckpointError


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file whose value is an object, or a list.

    Raises:
        CheckpointError: it cannot be read, or it has another value.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} is damaged: not a JSON {'object' if kind is dict else 'list'}.")
    return value
