"""Folders that this process made: a run that does not start removes these, and no others."""

import os
from pathlib import Path

from zoo.core.errors import ConfigError

_made: set[Path] = set()  # the highest new folder of each call; everything below it is new too


def make_folder(folder: Path, exist_ok: bool = True) -> None:
    """Make a folder with its parents, and record which of them are new.

    Raises:
        FileExistsError: the folder exists, and `exist_ok` is false.
        ConfigError: its path is not UTF-8, in which event files and configurations are written.
    """
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"folder={folder}: its name is not UTF-8. Choose another one, or run under LC_ALL=C.UTF-8."
        ) from None
    path = folder.absolute()
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=exist_ok)
    _made.update(missing[-1:])


def make_new_folder(folder: Path) -> Path:
    """Make a folder that did not exist: `folder`, else `folder-2`, `folder-3` ...; safe with several processes."""
    candidate, number = folder, 1
    while True:
        try:
            make_folder(candidate, exist_ok=False)
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")


def remove_empty(folder: Path) -> None:
    """Remove a folder, then its parents, as long as they are empty and this process made them."""
    path = folder.absolute()
    for place in (path, *path.parents):
        if not any(place.is_relative_to(made) for made in _made):
            return
        if place.exists():
            if any(place.iterdir()):
                return
            place.rmdir()
        _made.discard(place)
