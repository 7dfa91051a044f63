"""Datamodule from tensors, arrays, a torch Dataset or a DataLoader."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from zoo.core.errors import DataError
from zoo.core.space import Space
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.loader import make_generator

HELD_OUT = 10  # one sample in ten is for validation, and one in ten for testing


class InMemoryData(DataModule):
    """Samples and class labels in memory, split at random into 80 % training, 10 % validation and 10 % test data.

    Args:
        x: images (N, C, H, W) or (N, H, W), bytes or float in [0, 1]; or vectors (N, D).
        y: class labels (N,), integers from 0; None for no labels.
        batch_size: samples per batch; None is 64, or a quarter of small training data.
        seed: seed of the training order; the split does not depend on it.

    Raises:
        DataError: another shape, type or range.
    """

    registered_name = "in_memory"

    def __init__(self, x: Tensor, y: Tensor | None = None, batch_size: int | None = None, seed: int = 0) -> None:
        if len(x) < HELD_OUT:
            raise DataError(f"data={tuple(x.shape)}: too few samples. Give at least {HELD_OUT}.")
        n_train = len(x) - 2 * held_out_size(len(x))
        super().__init__(batch_size or min(64, max(n_train // 4, 1)), seed)
        self.x, space = infer_space(x)
        self.y = torch.zeros(len(x), dtype=torch.int64) if y is None else y.long()
        if self.y.shape != (len(x),) or int(self.y.min()) < 0:
            raise DataError(f"y={tuple(self.y.shape)}: not class labels from 0. Give integers of shape ({len(x)},).")
        label = None if y is None else Label(int(self.y.max()) + 1)
        self._spec = DataSpec(space, label, self.registered_name)

    @property
    def spec(self) -> DataSpec:
        """Spaces of the samples and labels."""
        return self._spec

    def load(self) -> None:
        """Split the samples."""
        order = torch.randperm(len(self.x), generator=make_generator(0))
        held = held_out_size(len(order))
        parts = order[2 * held :], order[:held], order[held : 2 * held]
        splits: list[Split] = [(self.x[part], self.y[part]) for part in parts]
        self.train, self.val, self.test = splits

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make a batch; bytes become floats in [0, 1]."""
        x, y = super().fetch(split, indices, generator, train=train)
        return (as_float(x) if x.dtype == torch.uint8 else x), y


def held_out_size(n: int) -> int:
    """Samples of each held-out split: at least two, because a variance needs two."""
    return max(n // HELD_OUT, 2)


def infer_space(x: Tensor) -> tuple[Tensor, Space]:
    """Return the samples in the form that is stored (images as bytes if that is lossless), and their space.

    Raises:
        DataError: neither images nor vectors.
    """
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 2 and x.is_floating_point():
        if not bool(x.isfinite().all()):
            raise DataError("data: vectors hold numbers that are not finite. Remove them.")
        return x.float(), Vector(x.shape[1])
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise DataError(
            f"data={tuple(x.shape)}, {x.dtype}: neither images nor vectors. Give (N, C, H, W) as bytes or float in "
            f"[0, 1], or (N, D) as float; for text use data=text."
        )
    if x.shape[1] > 4 and x.shape[3] in (1, 3, 4):  # (N, H, W, C), the layout of NumPy and PIL
        x = x.permute(0, 3, 1, 2).contiguous()
    if x.dtype != torch.uint8:
        if not 0 <= float(x.min()) <= float(x.max()) <= 1:
            raise DataError(f"data: images from {float(x.min()):g} to {float(x.max()):g}. Scale floats to [0, 1].")
        levels = (x * 255).round()
        x = levels.to(torch.uint8) if torch.allclose(levels / 255, x.float(), atol=1e-5) else x.float()
    return x, Image(*x.shape[1:])


def as_datamodule(data: Any, batch_size: int | None = None, seed: int = 0) -> DataModule:
    """Convert a datamodule, a tensor, an array, a tuple (x, y) of these, a Dataset or a DataLoader.

    A Dataset is read once, so random transformations are drawn once.

    Raises:
        DataError: anything else, or samples that are neither images nor vectors.
    """
    if isinstance(data, DataModule):
        data.batch_size = batch_size or data.batch_size
        return data
    if isinstance(data, DataLoader):
        batch_size, data = batch_size or data.batch_size, data.dataset
    if isinstance(data, (Tensor, np.ndarray)):
        return InMemoryData(torch.as_tensor(data), None, batch_size, seed)
    if isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], (Tensor, np.ndarray)):
        return InMemoryData(torch.as_tensor(data[0]), torch.as_tensor(data[1]), batch_size, seed)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(
            f"data={type(data).__name__}: not data. Give a tensor, an array, (x, y), a Dataset with a length, a "
            f"DataLoader, or a zoo.DataModule."
        )
    try:
        read = default_collate([data[i] for i in range(len(data))])
    except (TypeError, RuntimeError) as error:  # PIL images, or unequal sizes
        raise DataError(
            f"data={type(data).__name__}: its samples do not stack ({error}). Transform them to tensors of one size."
        ) from None
    x, *rest = [read] if isinstance(read, Tensor) else list(read)
    return as_datamodule((x, rest[0]) if rest else x, batch_size, seed)
