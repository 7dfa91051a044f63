"""Checkpoints with an embedded digest that detects truncation and corruption.

A checkpoint is the zip archive of `torch.save`. The archive comment, the last bytes of the file, holds the SHA-256 of
everything before it. So the digest is always in sync, and every reader, including `torch.load`, still works.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from zoo.io.atomic import atomic_replace

DIGEST_PREFIX = b"zoo sha256 "
_COMMENT_SIZE = len(DIGEST_PREFIX) + 64  # bytes of the comment: prefix and hexadecimal digest
_EOCD, _EOCD_SIZE = b"PK\x05\x06", 22  # end of central directory; its last two bytes are the comment length


class HashedCheckpointIO(TorchCheckpointIO):
    """Lightning checkpoint plugin that writes atomically, flushes to disk and appends a digest.

    Lightning's default makes two copies in memory and writes through the system's temporary folder, which is not atomic
    across disks.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        with atomic_replace(Path(path)) as draft, draft.open("w+b") as file:
            save_with_digest(checkpoint, file)
            os.fsync(file.fileno())


def save_with_digest(content: Any, file: BinaryIO) -> None:
    """`torch.save` into an empty file, with the SHA-256 digest as the archive comment.

    Raises:
        OSError: writing failed, for instance because the disk is full.
    """
    hashed = _Hashed(file)
    torch.save(content, hashed)  # type: ignore[arg-type]  # only `write` is used
    if hashed.failed:
        raise hashed.failed
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT_SIZE.to_bytes(2, "little") + DIGEST_PREFIX + hashed.digest.hexdigest().encode())
    file.flush()


class _Hashed:
    """File wrapper that hashes all written bytes.

    Errors are stored and raised later: torch's C++ writer would replace them.
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
    """Describe the damage of a checkpoint, or return None if it is intact.

    Archives without a digest, written by other software, pass: `torch.load` checks them.
    """
    tail = _EOCD_SIZE + _COMMENT_SIZE
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - tail, 0))
        end = file.read()
        if end[-_EOCD_SIZE:].startswith(_EOCD) and end.endswith(b"\0\0"):
            return None
        if size < tail or not end.startswith(_EOCD):
            return "it is truncated, or not a checkpoint"
        length, comment = end[_EOCD_SIZE - 2 : _EOCD_SIZE], end[_EOCD_SIZE:]
        if length != _COMMENT_SIZE.to_bytes(2, "little") or not comment.startswith(DIGEST_PREFIX):
            return "its end was changed"
        file.seek(0)
        digest, remaining = hashlib.sha256(), size - _COMMENT_SIZE - 2
        while block := file.read(min(remaining, 1 << 20)):
            digest.update(block)
            remaining -= len(block)
    digest.update(b"\0\0")  # the comment length at hashing time
    return None if digest.hexdigest().encode() == comment[len(DIGEST_PREFIX) :] else "its content was changed"
