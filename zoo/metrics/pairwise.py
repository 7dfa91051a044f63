"""Pairwise distances in blocks of rows, so that 10,000 x 60,000 pairs fit in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_PAIRS = 2**22  # 32 MiB in float64, which fits the cache
TREE_DIMS = 8  # up to which a k-d tree finds neighbours in less time than all distances take


def row_blocks(x: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Split x into row blocks of at most `BLOCK_PAIRS` pairs with `columns` others; yield (first row, block)."""
    rows = max(BLOCK_PAIRS // columns, 1)
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, Euclidean distances of x (N, D) to y (M, D) as float64 blocks (rows, M)).

    Matrix products relative to the mean of y are ten times faster than differences. Equal vectors get distances up to
    1e-7 of the data's spread.
    """
    x, y = x.double(), y.double()
    centre = y.mean(0)
    x, y = x - centre, y - centre
    squared_norms = y.square().sum(1)  # computed once; `torch.cdist` recomputes them and copies y for every block
    for start, part in row_blocks(x, len(y)):
        squares = torch.addmm(squared_norms, part, y.T, alpha=-2).add_(part.square().sum(1, keepdim=True))
        yield start, squares.clamp_(min=0).sqrt_()


def nearest(x: Tensor, y: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Distance and index, both (N,), of the k-th nearest vector of y (M, D) for each of x (N, D).

    The distance is recomputed from the difference, so that of a copy is exactly zero. For distances within one set, k =
    2 is the nearest other vector.

    Raises:
        RuntimeError: y has fewer than k vectors.
    """
    if x.shape[1] <= TREE_DIMS and len(y) >= k and x.device.type == "cpu" and x.isfinite().all() and y.isfinite().all():
        from scipy.spatial import cKDTree  # slow to import

        _, found = cKDTree(y.double().numpy()).query(x.double().numpy(), [k])  # (N, 1)
        index = torch.from_numpy(found[:, 0])
    else:
        index = torch.cat([block.topk(k, largest=False).indices[:, -1] for _, block in distances(x, y)])
    distance = [
        (part.double() - y[index[i : i + len(part)]].double()).norm(dim=1) for i, part in row_blocks(x, x.shape[1])
    ]
    return torch.cat(distance), index
