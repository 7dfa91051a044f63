"""Checkpoints with a digest that shows whether they are intact."""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from zoo.io.atomic import atomic_replace

MARK = b"zoo sha256 "
_SEAL = len(MARK) + 64  # bytes of comment: the mark and a digest in hexadecimal
_END, _END_SIZE = b"PK\x05\x06", 22  # a zip archive's last record; its last two bytes are the comment's length


class HashedCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints: each one whole, on the disk, and sealed with its digest.

    Lightning's own makes two copies in memory first, and writes through the system's temporary folder: from another
    disk that is no longer atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write."""
        with atomic_replace(Path(path)) as draft, draft.open("w+b") as file:
            save_with_digest(checkpoint, file)
            os.fsync(file.fileno())


def save_with_digest(content: Any, file: BinaryIO) -> None:
    """`torch.save` into an empty file, hashed on the way, with the digest as the archive's comment.

    Raises:
        OSError: the disk is full, or the like.
    """
    hashed = _Hashed(file)
    torch.save(content, hashed)  # type: ignore[arg-type]  # it needs no more than write
    if hashed.failed:
        raise hashed.failed
    file.seek(-2, os.SEEK_END)
    file.write(_SEAL.to_bytes(2, "little") + MARK + hashed.digest.hexdigest().encode())
    file.flush()


class _Hashed:
    """Passes bytes on to a file and hashes them.

    What goes wrong is kept for later: torch's writer, in C++, would turn it into an error of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failed is None:
            try:
                self.digest.update(data)
                self.file.write(data)
            except OSError as error:
                self.failed = error
        return len(data)

    def flush(self) -> None:
        if self.failed is None:
            try:
                self.file.flush()
            except OSError as error:
                self.failed = error


def integrity_error(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None where nothing is.

    An archive without a digest, which something else than the zoo wrote, passes: what can be said of it is what
    `torch.load` says.
    """
    tail = _END_SIZE + _SEAL
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - tail, 0))
        end = file.read()
        if end[-_END_SIZE:].startswith(_END) and end.endswith(b"\0\0"):
            return None
        if size < tail or not end.startswith(_END):
            return "it is cut short, or no checkpoint"
        length, comment = end[_END_SIZE - 2 : _END_SIZE], end[_END_SIZE:]
        if length != _SEAL.to_bytes(2, "little") or not comment.startswith(MARK):
            return "its end was altered"
        file.seek(0)
        digest, left = hashlib.sha256(), size - _SEAL - 2
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    digest.update(b"\0\0")  # the length of the comment, when the digest was taken
    return None if digest.hexdigest().encode() == comment[len(MARK) :] else "its content was altered"
