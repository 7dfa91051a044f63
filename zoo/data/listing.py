"""List the files of a user's folder: hidden and system files are left out, and others are counted."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pytorch_lightning.utilities import rank_zero_only

from zoo.core.counted import counted
from zoo.core.errors import DataError, printable

T = TypeVar("T")
OnError = Literal["raise", "skip"]
log = logging.getLogger(__name__)
# Files and folders of operating systems, network storage and package managers, in lower case.
SYSTEM = frozenset({
    "$recycle.bin", "#recycle", "@eadir", "__macosx", "__pycache__", "desktop.ini", "ehthumbs.db", "lost+found",
    "node_modules", "site-packages", "system volume information", "thumbs.db",
})  # fmt: skip


@dataclass
class Listing:
    """Files below a folder as relative paths with slashes, and numbers of other files."""

    files: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # number of files that are not wanted, by suffix
    hidden: int = 0  # files and folders
    links: int = 0  # that lead to a file in the list

    def kinds(self, most: int = 5) -> str:
        """Describe the files that are not wanted, the most frequent suffix first."""
        first = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        rest = sum(n for _, n in first[most:])
        return ", ".join([f"{n:,} {suffix}" for suffix, n in first[:most]] + [f"{rest:,} others"] * bool(rest))

    def report(self, setting: str, wanted: str) -> None:
        """Warn of the files that are not wanted; log hidden files and repeated links."""
        if self.others:
            log_rank0(
                log.warning,
                f"{setting}: read {counted(len(self.files), 'file')}; left out {self.kinds()}: not {wanted}.",
            )
        for number, what in ((self.hidden, "hidden or system files and folders"), (self.links, "links to other files")):
            if number:
                log_rank0(log.info, f"{setting}: left out {number:,} {what}.")


def read_files(root: Path, files: Sequence[str], read: Callable[[str], T], what: str, on_error: str) -> dict[str, T]:
    """Read files below a folder, and name all that cannot be read.

    Args:
        root: the folder.
        files: relative paths.
        read: reads a file by its relative path.
        what: singular noun of a file, for messages.
        on_error: see `report_unreadable`.

    Raises:
        DataError: see `report_unreadable`.
    """
    found, broken = dict[str, T](), dict[str, str]()
    for file in files:
        try:
            found[file] = read(file)
        except DataError as error:
            problem = str(error).removeprefix(f"{root / file}: ").removeprefix(f"{file}: ")
            broken[file] = problem.rpartition(". ")[0] or problem  # without the remedy for one file
    report_unreadable(f"data.path={root}", broken, what, on_error)
    return found


def report_unreadable(setting: str, broken: Mapping[str, str], what: str, on_error: str) -> None:
    """Refuse files that cannot be read (name -> reason), or warn if `on_error` is "skip".

    Raises:
        DataError: there are some, and `on_error` is "raise".
    """
    if not broken:
        return
    named = ", ".join(f"{file} ({reason})" for file, reason in list(broken.items())[:5])
    more = f" and {len(broken) - 5:,} more" if len(broken) > 5 else ""
    problem = f"{setting}: {counted(len(broken), what)} cannot be read: {named}{more}"
    if on_error == "raise":
        raise DataError(f"{problem}. Repair or delete them, or leave them out with data.on_error=skip.")
    log_rank0(log.warning, f"{problem}; left out.")


def list_folder(root: Path, wanted: Callable[[str], bool]) -> Listing:
    """List the files below a folder in no particular order; each linked folder or file is followed once.

    Args:
        root: the folder.
        wanted: whether a relative path is listed.

    Raises:
        DataError: a folder cannot be listed.
    """
    found, links, seen = Listing(), list[tuple[str, str]](), {os.path.realpath(root)}
    real_root, pending = os.path.realpath(root), [""]
    while pending:
        prefix, below = pending.pop(), list[str]()
        for entry in entries(os.path.join(root, prefix)):
            path = prefix + entry.name  # a string: with a `Path` for each this takes three times as long
            if is_hidden(entry.name):
                found.hidden += 1
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    below.append(f"{path}/")
            elif not wanted(path) or not entry.is_file():
                found.others[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
            elif entry.is_symlink():
                links.append((path, os.path.realpath(entry.path)))
            else:
                found.files.append(path)
        pending.extend(reversed(below))
    taken = {os.path.join(real_root, *path.split("/")) for path in found.files} if links else set()
    for path, real in sorted(links):
        if real in taken:
            found.links += 1
        else:
            taken.add(real)
            found.files.append(path)
    return found


def entries(folder: str) -> list[os.DirEntry[str]]:
    """List a folder, sorted by name.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as inside:
            return sorted(inside, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}). Change its permissions.") from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, of the operating system, or the lock of an office program."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM


def log_rank0(how: Callable[[str], None], message: str) -> None:
    """Log in the first process only."""
    rank_zero_only(how)(printable(message))
