"""Folders of cached files and of data."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Cache folder: `$ZOO_CACHE`, else `~/.cache/zoo`."""
    return Path(os.environ.get("ZOO_CACHE") or Path.home() / ".cache" / "zoo").expanduser()


def data_root(root: str | None) -> Path:
    """Data folder: `data.path=`, else `$ZOO_DATA`, else `~/.cache/zoo`."""
    return Path(root or os.environ.get("ZOO_DATA") or Path.home() / ".cache" / "zoo").expanduser()
