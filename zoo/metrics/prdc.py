"""Precision, recall, density, coverage: fidelity and diversity as separate numbers.

The support of a distribution is estimated by balls around its points, each with its distance to the k-th nearest other
point as radius. Read all four numbers together: a constant sample has precision 1, and blur raises it.
"""

import math

import torch
from torch import Tensor

from zoo.metrics.pairwise import distances, nearest

NEIGHBOURS = 5  # k, as in Naeem et al. 2020
RADIUS_SHRINKAGE = 1 - 1e-6  # the sphere itself is outside, up to rounding: copies lie on many


def prdc(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of fake (M, D) against real (N, D).

    - precision: share of fake points in any real ball; recall: share of real points in any fake ball (Kynkäänniemi et
      al. 2019, 1904.06991, equation 2);
    - density: mean number of real balls that contain a fake point, over k; 1 on average for equal distributions, and
      unbounded;
    - coverage: share of real balls that contain a fake point; see `coverage_null` (both Naeem et al. 2020, 2002.09797,
      equations 3 and 4).

    All but density depend on the sample sizes: compare values at equal N and M. A point with more than k duplicates has
    an empty ball.

    Raises:
        RuntimeError: there are no more than k real or fake points.
    """
    real_radius = nearest(real, real, k + 1)[0] * RADIUS_SHRINKAGE  # (N,); the first neighbour is the point itself
    fake_radius = nearest(fake, fake, k + 1)[0] * RADIUS_SHRINKAGE  # (M,)
    balls = []  # real balls that each fake point is in
    covered = torch.zeros_like(real_radius, dtype=torch.bool)
    recalled = torch.zeros_like(covered)
    for start, block in distances(fake, real):  # (rows, N)
        inside = block < real_radius
        balls.append(inside.sum(1))
        covered |= inside.any(0)
        recalled |= (block < fake_radius[start : start + len(block), None]).any(0)
    count = torch.cat(balls)
    return {
        "precision": float((count > 0).double().mean()),
        "recall": float(recalled.double().mean()),
        "density": float(count.double().mean() / k),
        "coverage": float(covered.double().mean()),
    }


def coverage_null(n: int, m: int, k: int = NEIGHBOURS) -> float:
    """Expected coverage of n real by m fake points of the same continuous distribution.

    Around a real point the n - 1 other real and the m fake points come in random order. Its ball is empty if the first
    k are all real: 1 - C(n - 1, k) / C(n - 1 + m, k). That is about 1 - (n / (n + m))^k, so 1 - 2^-k for n = m.
    """
    return 1 - math.comb(n - 1, k) / math.comb(n - 1 + m, k)
