"""Batches of samples and their labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """One batch. `x, y = batch` unpacks the first two fields.

    Args:
        x: samples (B, *shape), as the space of the data describes them.
        y: class labels int64 (B,) or targets (B, T); zeros if there are none.
        mask: True where x holds data and not padding (B, ...); None for no padding.
    """

    x: Tensor
    y: Tensor
    mask: Tensor | None = None

    @classmethod
    def of(cls, value: Any) -> "Batch":
        """Convert a loader's value: a batch, a tensor, (x,), (x, y), (x, y, mask) or a mapping of these names.

        Raises:
            TypeError: anything else.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Tensor):
            value = (value,)
        given = dict(value) if isinstance(value, Mapping) else dict(zip(("x", "y", "mask"), value, strict=False))
        x = given.get("x")
        if not isinstance(x, Tensor) or not given.keys() <= {"x", "y", "mask"}:
            raise TypeError(
                f"batch={type(value).__name__}: not a batch. Yield a tensor x, or a tuple (x, y) of tensors."
            )
        y = given.get("y")
        return cls(x, torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else y, given.get("mask"))

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """Move the batch to a device."""
        parts = (None if t is None else t.to(device, non_blocking=non_blocking) for t in (self.x, self.y, self.mask))
        return type(self)(*parts)  # type: ignore[arg-type]  # x and y are tensors

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.y))

    def __len__(self) -> int:
        return len(self.x)
