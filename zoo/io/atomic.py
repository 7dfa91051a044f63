"""Files that are there whole or not at all, and checkpoints that show whether they are.

A checkpoint is the zip archive that `torch.save` writes, and the archive's comment - the last bytes of the file - holds
the SHA-256 of everything before it. The digest cannot be out of step with what it vouches for, as one in a file of its
own could, and every reader of such archives, `torch.load` included, still reads them.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes its place if all goes well and is gone if not."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as draft:
        draft.write_bytes(content)


def sha256(path: Path) -> str:
    """Of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
