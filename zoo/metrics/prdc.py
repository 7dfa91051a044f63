"""Fidelity and diversity apart: are the samples where the data is, and is there a sample wherever data is?

The support of a distribution is estimated by balls around its points, each out to the point's k-th nearest
other point. Any one of the four numbers is easily gamed - a constant sample has precision 1, blur raises it -
so read them together.
"""

import math

import torch
from torch import Tensor

from zoo.metrics.pairwise import distances, nearest

INSIDE = 1 - 1e-6  # a point on the sphere is outside, to within rounding: copies are on many


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of fake (M, D) against real (N, D).

    - precision: share of fake points in the ball of any real point, recall: share of real points in the ball of
      any fake point (Kynkäänniemi et al. 2019, 1904.06991, equation 2);
    - density: number of real balls that a fake point is in, over k: 1 on average where the distributions are
      equal, and not bounded by it; coverage: share of real balls with a fake point inside (Naeem et al. 2020,
      2002.09797, equations 3 and 4): see `coverage_null`.

    All but density depend on the numbers of points: compare values at equal N and M. Points that more than k
    others are equal to have an empty ball.

    Raises:
        RuntimeError: there are no more than k real or fake points.
    """
    real_radius = nearest(real, real, k + 1)[0] * INSIDE  # (N,); the first neighbour is the point itself
    fake_radius = nearest(fake, fake, k + 1)[0] * INSIDE  # (M,)
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


def coverage_null(n: int, m: int, k: int = 5) -> float:
    """Expected coverage of n real by m fake points of the same continuous distribution.

    Seen from a real point, the n - 1 other real and the m fake points come in random order, and its ball is
    empty where the first k are all real: 1 - C(n - 1, k) / C(n - 1 + m, k), about 1 - (n / (n + m))^k, so
    1 - 2^-k for n = m.
    """
    return 1 - math.comb(n - 1, k) / math.comb(n - 1 + m, k)
