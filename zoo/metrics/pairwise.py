"""All pairs of two sets of vectors, in blocks of rows, so that 10,000 x 60,000 of them fit in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

CELLS = 2**22  # pairs at a time: 32 MiB in float64; smaller blocks read y too often, larger ones leave the cache


def row_blocks(x: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Consecutive parts of x whose pairs with so many columns fit, each with the number of its first row."""
    rows = max(CELLS // columns, 1)
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Euclidean distances of x (N, D) to y (M, D), float64, in blocks (rows, M) with the number of their first row.

    By matrix products around the mean of y: ten times as fast as differences, but equal vectors come out up
    to 1e-7 of the spread of the data apart.
    """
    x, y = x.double(), y.double()
    centre = y.mean(0)
    x, y = x - centre, y - centre
    lengths = y.square().sum(1)  # once; `torch.cdist` would take them, and copy y, for every block
    for start, part in row_blocks(x, len(y)):
        squares = torch.addmm(lengths, part, y.T, alpha=-2).add_(part.square().sum(1, keepdim=True))
        yield start, squares.clamp_(min=0).sqrt_()


def nearest(x: Tensor, y: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k-th nearest vector of y (M, D) to each of x (N, D): its distance and its index, both (N,).

    The distance is recomputed from the difference: that of a copy is exactly zero. In a set's distances to
    itself, k = 2 is the nearest other vector, for nothing is nearer than the vector itself or its copy.

    Raises:
        RuntimeError: y has fewer than k vectors.
    """
    index = torch.cat([block.topk(k, largest=False).indices[:, -1] for _, block in distances(x, y)])
    apart = [
        (part.double() - y[index[i : i + len(part)]].double()).norm(dim=1) for i, part in row_blocks(x, x.shape[1])
    ]
    return torch.cat(apart), index
