"""Maximum mean discrepancy: a distance between distributions with an unbiased estimate (Gretton et al. 2012, JMLR 13).

Unlike the Frechet distance it is comparable across sample sizes. For equal distributions it is zero on average, so
negative about half of the time.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from zoo.metrics.pairwise import row_blocks

Kernel = Callable[[Tensor, Tensor], Tensor]  # (N, D), (M, D) -> (N, M)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of x (N, D) and y (M, D) under the kernel (a.b / D + 1)^3, for vectors scaled to length sqrt(D).

    The kernel of KID (Binkowski et al. 2018, 1801.01401, section 4), which is defined on Inception features; the cube
    depends on their scale. After scaling, a.b / D is the cosine, and the kernel lies in [0, 8]. Only directions are
    compared: lengths have no effect, and below about ten dimensions it is of little use.
    """
    x, y = (F.normalize(t.double(), dim=1) for t in (x, y))
    return squared_mmd(lambda a, b: (a @ b.T + 1) ** 3, x, y)


def squared_mmd(kernel: Kernel, x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of x (N, D) and y (M, D), at least two of each (Gretton et al. 2012, equation 3).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y), without pairs of a vector with itself.
    """
    x, y = x.double(), y.double()
    across = sum(float(kernel(part, y).sum()) for _, part in row_blocks(x, len(y))) / (len(x) * len(y))
    return _mean_within(kernel, x) + _mean_within(kernel, y) - 2 * across


def _mean_within(kernel: Kernel, x: Tensor) -> float:
    """Mean of the kernel over pairs of different vectors of one set."""
    total = 0.0
    for start, part in row_blocks(x, len(x)):
        block = kernel(part, x)
        total += float(block.sum() - block.diagonal(start).sum())
    return total / (len(x) * (len(x) - 1))
