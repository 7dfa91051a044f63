"""Rows of prompts and answers that are tokenized once into memory-mapped files."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from zoo.core.cache import cache_root
from zoo.core.errors import DataError
from zoo.data.base import Split
from zoo.io.atomic import atomic_folder, fsync

log = logging.getLogger(__name__)
VERSION = 1  # of the format of the files
HELD = 10_000  # rows of each split that stay in memory as text, for prompts and reports


class RowWriter:
    """Writes the rows of one split: where each begins and how long it is, and its input and scored tokens.

    Args:
        folder: of the files.
        name: of the split.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.paths = [folder / f"{name}.{part}" for part in ("spans", "bin", "scored")]
        self.spans, self.x, self.y = (path.open("wb") for path in self.paths)
        self.size = self.tokens = self.scored = self.n = self.longest = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Write the tokens of one answer, int32 (T,)."""
        self.spans.write(torch.tensor([self.size, len(x)]).numpy().tobytes())
        self.x.write(x.numpy().tobytes())
        self.y.write(y.numpy().tobytes())
        self.size += len(x)
        if scored := int((y >= 0).sum()):  # else an absent answer
            self.tokens, self.scored, self.n = self.tokens + len(x), self.scored + scored, self.n + 1
            self.longest = max(self.longest, len(x))

    def close(self) -> dict[str, int]:
        """Join the files of tokens; return numbers of rows and tokens."""
        self.y.close()
        with self.paths[2].open("rb") as scored:
            shutil.copyfileobj(scored, self.x)
        self.paths[2].unlink()
        for file, path in ((self.spans, self.paths[0]), (self.x, self.paths[1])):
            file.flush()
            fsync(path)
            file.close()
        return {"rows": self.n, "tokens": self.tokens, "scored": self.scored, "longest": self.longest}


def map_rows(folder: Path, name: str, answers: int) -> Split:
    """Map the rows of a split: spans int64 (N, answers, 2), and tokens int32 (2, M); see `concatenate` of `prompts`."""
    spans, tokens = folder / f"{name}.spans", folder / f"{name}.bin"
    where = torch.from_file(str(spans), size=spans.stat().st_size // 8, dtype=torch.int64).view(-1, answers, 2)
    return where, torch.from_file(str(tokens), size=tokens.stat().st_size // 4, dtype=torch.int32).view(2, -1)


def row_folder(key: list[Any], write: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The folder of the rows of a key, written once and atomically; and the counts.

    Args:
        key: plain values that decide the rows.
        write: writes them into a folder, and returns counts.

    Raises:
        DataError: no space.
    """
    root = cache_root() / "rows"
    folder = root / hashlib.sha256(json.dumps([VERSION, *key]).encode()).hexdigest()[:16]
    if not folder.is_dir():
        rank_zero_only(log.info)(f"tokenizing into {folder}, once")
        try:
            with atomic_folder(folder) as draft:
                (draft / "counts.json").write_text(json.dumps(write(draft)), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"data.streaming=true: the tokens cannot be written to {root} ({error.strerror}). Set ZOO_CACHE to a "
                "folder with free space."
            ) from None
    return folder, json.loads((folder / "counts.json").read_text(encoding="utf-8"))
