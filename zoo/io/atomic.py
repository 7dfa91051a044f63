"""Atomic file writes and file digests."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl as _fcntl

    fcntl: Any = _fcntl
except ImportError:  # such as Windows
    fcntl = None

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, or a limit of the system is reached


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield a draft path next to `path`; rename it to `path` on success, and delete it on failure."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft folder next to `folder`; rename it on success, and delete it on failure.

    If another process has made the folder in the meantime, that one stays. Drafts in the same place, of processes that
    were killed, are removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_drafts(folder.parent)
    draft, lock = _locked_draft(folder)
    try:
        yield draft
        try:
            draft.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_draft(folder: Path) -> tuple[Path, int | None]:
    """A new draft folder, and a descriptor that locks it until it is closed, or None without locks."""
    while True:
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.draft")
        draft.mkdir()
        try:
            lock = _lock(draft, wait=True)
        except FileNotFoundError:  # another process removed it before it was locked
            continue
        if lock is None or draft.is_dir():
            return draft, lock
        os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder until the descriptor is closed or the process ends.

    Returns:
        The descriptor, or None where another holds it and `wait` is off, or where such locks are not supported.

    Raises:
        FileNotFoundError: no such folder.
    """
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except FileNotFoundError:
        raise
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def remove_stale_drafts(place: Path) -> None:
    """Remove draft folders that no process holds: those of runs that were killed.

    Without locks, as on Windows, all stay.
    """
    for draft in place.glob(".*.draft"):
        if draft.is_symlink() or not draft.is_dir():
            continue
        try:
            lock = _lock(draft, wait=False)
        except FileNotFoundError:  # renamed or removed by its process
            continue
        if lock is None:
            continue
        try:
            if os.path.samestat(os.fstat(lock), os.stat(draft)):
                shutil.rmtree(draft, ignore_errors=True)
        except FileNotFoundError:
            pass
        finally:
            os.close(lock)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, with its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as draft:
        draft.write_bytes(content)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk. Windows cannot flush folders."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
