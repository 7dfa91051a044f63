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


def write_reference(folder: Path, x: Tensor, y: Tensor) -> None:
    """Write inputs (N, T) and targets (N, T), both cut to `TEXTS` rows of `LENGTH` tokens."""
    cut = {name: t[:TEXTS, :LENGTH].to(torch.int32).contiguous() for name, t in (("x", x), ("y", y))}
    with atomic_replace(folder / FILE) as draft:
        draft.write_bytes(save(cut))


def read_reference(folder: Path) -> Batch | None:
    """Read them; None if the run does not keep any.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = load_file(path)
        x, y = found["x"].long(), found["y"].long()
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged ({error}). Delete it.") from None
    if x.shape != y.shape or x.ndim != 2 or not len(x):
        raise CheckpointError(f"{path}: damaged (shapes {tuple(x.shape)} and {tuple(y.shape)}). Delete it.")
    return Batch(x, y)
