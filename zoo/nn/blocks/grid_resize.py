"""Change of the size of maps by fixed matrices, which are deterministic on every device."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.blocks.constants import FixedConstants


def resize_matrix(n_in: int, n_out: int, mode: Literal["area", "bicubic"]) -> Tensor:
    """The matrix (n_out, n_in) of torch's interpolation of a column."""
    return F.interpolate(torch.eye(n_in)[None, None], size=(n_out, n_in), mode=mode)[0, 0]


class GridResize(FixedConstants):
    """Maps (B, D, *size) -> maps (B, D, *other), as by `torch.nn.functional.interpolate`.

    Args:
        size: height and width.
        other: those of the result.
        mode: "area" means of the pixels, to make maps smaller; "bicubic" to make them larger.
    """

    rows: Tensor  # (other height, height)
    columns: Tensor  # (width, other width)

    def __init__(self, size: tuple[int, int], other: tuple[int, int], mode: Literal["area", "bicubic"]) -> None:
        super().__init__()
        self.register_buffer("rows", resize_matrix(size[0], other[0], mode), persistent=False)
        self.register_buffer("columns", resize_matrix(size[1], other[1], mode).T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, *size) -> (B, D, *other)."""
        return self.rows.to(x.dtype) @ x @ self.columns.to(x.dtype)
