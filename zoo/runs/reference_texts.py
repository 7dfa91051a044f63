"""Held-out texts kept in a run folder, that later texts are compared with."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.data.batch import Batch
from zoo.io.atomic import atomic_replace

FILE = "reference.safetensors"
TEXTS, LENGTH = 64, 64  # rows, and tokens of each


def lengths_of(y: Tensor) -> Tensor:
    """Tokens of prompts and of their answers without ends, int32 (M, 2), of the rows of targets (N, T) with both.

    A row of a prompt and its answer begins without targets, and has the answer's in one piece. Windows of a longer text
    have targets from the beginning, and rows of several turns have several pieces: neither has such lengths.
    """
    scored = y >= 0
    begins = scored & ~torch.nn.functional.pad(scored, (1, 0))[:, :-1]  # first target of each piece
    first = begins.int().argmax(1)
    rows = (begins.sum(1) == 1) & (first > 0)
    return torch.stack([first + 1, scored.sum(1) - 1], 1)[
        rows
    ].int()  # the first target follows the prompt's last token


def write_reference(folder: Path, x: Tensor, y: Tensor) -> None:
    """Write inputs (N, T) and targets (N, T), both cut to `TEXTS` rows of `LENGTH` tokens, and their whole lengths."""
    cut = {name: t[:TEXTS, :LENGTH].to(torch.int32).contiguous() for name, t in (("x", x), ("y", y))}
    if len(lengths := lengths_of(y)):
        cut["lengths"] = lengths.contiguous()
    with atomic_replace(folder / FILE) as draft:
        draft.write_bytes(save(cut))


def read_reference(folder: Path) -> Batch | None:
    """Read them; None if the run does not keep any.

    Raises:
        CheckpointError: the file is damaged.
    """
    found = read(folder)
    if found is None:
        return None
    x, y = found.get("x"), found.get("y")
    if x is None or y is None or x.shape != y.shape or x.ndim != 2 or not len(x):
        raise damaged(folder, "no inputs and targets of equal shapes")
    return Batch(x.long(), y.long())


def read_lengths(folder: Path) -> Tensor | None:
    """Tokens of prompts and of their answers (M, 2); None if the run does not keep any.

    Raises:
        CheckpointError: the file is damaged.
    """
    lengths = (read(folder) or {}).get("lengths")
    if lengths is not None and (lengths.ndim != 2 or lengths.shape[1] != 2 or not len(lengths)):
        raise damaged(folder, f"lengths of shape {tuple(lengths.shape)}")
    return lengths


def read(folder: Path) -> dict[str, Tensor] | None:
    """Tensors of the file; None without one.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return load_file(folder / FILE)
    except SafetensorError as error:
        raise damaged(folder, str(error)) from None


def damaged(folder: Path, reason: str) -> CheckpointError:
    """The error of a damaged file."""
    return CheckpointError(f"{folder / FILE}: damaged ({reason}). Delete it.")
