"""Maximum mean discrepancy: a distance between two distributions whose estimate from samples has no bias.

Unlike the Frechet distance it can be compared across numbers of samples, and it is zero on average, so
negative about half of the time, where the distributions are equal (Gretton et al. 2012, JMLR 13).
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from zoo.metrics.pairwise import row_blocks

Kernel = Callable[[Tensor, Tensor], Tensor]  # (N, D), (M, D) -> (N, M)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of x (N, D) and y (M, D) under the kernel (a.b / D + 1)^3, each vector scaled to length sqrt(D).

    The kernel is that of KID (Binkowski et al. 2018, 1801.01401, section 4), which is defined on Inception
    features; the cube makes it meaningless on features of any other scale. Scaled, a.b / D is the cosine and
    every kernel value lies in [0, 8]: directions alone are compared, so it is blind to a common factor, and of
    little use below some ten dimensions.
    """
    x, y = (F.normalize(t.double(), dim=1) for t in (x, y))
    return squared_mmd(lambda a, b: (a @ b.T + 1) ** 3, x, y)


def squared_mmd(kernel: Kernel, x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of x (N, D) and y (M, D), at least two of each (Gretton et al. 2012, equation 3).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y), no vector with itself.
    """
    x, y = x.double(), y.double()
    across = sum(float(kernel(part, y).sum()) for _, part in row_blocks(x, len(y))) / (len(x) * len(y))
    return _among(kernel, x) + _among(kernel, y) - 2 * across


def _among(kernel: Kernel, x: Tensor) -> float:
    """Mean of the kernel over pairs of different vectors of one set."""
    total = 0.0
    for start, part in row_blocks(x, len(x)):
        block = kernel(part, x)
        total += float(block.sum() - block.diagonal(start).sum())
    return total / (len(x) * (len(x) - 1))
