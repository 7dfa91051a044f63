"""Folders of cached files and of data."""

import os
import tempfile
from functools import cache
from pathlib import Path

from zoo.core.errors import ConfigError, DataError


def user_path(path: str | Path) -> Path:
    """Expand a leading `~` or `~user`; a path whose user is unknown stays as it is.

    Raises:
        ConfigError: a path below `~`, for a user without a home folder.
    """
    expanded = Path(os.path.expanduser(path))
    if expanded.parts[:1] == ("~",) and not Path("~").exists():
        raise ConfigError(f"{path}: this user does not have a home folder. Set HOME, or give a full path.")
    return expanded


def cache_root() -> Path:
    """Cache folder: `$ZOO_CACHE`, else `~/.cache/zoo`, else a temporary folder of this process."""
    return user_path(os.environ.get("ZOO_CACHE") or _home_cache())


def data_root(root: str | None) -> Path:
    """Data folder: `data.path=`, else `$ZOO_DATA`, else `~/.cache/zoo`, else a temporary folder of this process."""
    return user_path(root or os.environ.get("ZOO_DATA") or _home_cache())


def data_file(root: str | None, name: str, source: str, instead: str = "") -> Path:
    """A file in the data folder that the user has to save there.

    Args:
        root: `data.path=`.
        name: of the file.
        source: where it comes from.
        instead: a data set that needs no file.

    Raises:
        DataError: it is not there.
    """
    path = data_root(root) / name
    if not path.is_file():
        other = f"set data.path or $ZOO_DATA, or take data={instead}" if instead else "or set data.path or $ZOO_DATA"
        raise DataError(f"data.path: no file {path}. Save {source} there, {other}.")
    return path


def _home_cache() -> Path:
    home = Path(os.path.expanduser("~"))
    return home / ".cache" / "zoo" if home.is_absolute() else Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """For users without a home folder, as in some containers; removed at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="zoo-cache-")
