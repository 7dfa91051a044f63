"""Frechet distance between Gaussians fitted to two sets of vectors (Dowson & Landau 1982).

It is called FID only on Inception features. The estimate is biased upwards, more so with more dimensions and fewer
samples: compare values only at equal features and sample sizes.
"""

import torch
from torch import Tensor

MAX_DIM = 64  # of `random_projection`: a few hundred samples suffice for the covariance


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """||mean1 - mean2||^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2)), in float64, non-negative.

    The trace of the square root is the sum of square roots of the eigenvalues of S cov2 S with S = cov1^(1/2). That
    matrix is symmetric, so the result is real even for singular covariances.

    Args:
        mean1: (D,).
        cov1: (D, D), symmetric, positive semi-definite.
        mean2: (D,).
        cov2: (D, D), symmetric, positive semi-definite.
    """
    mean1, cov1, mean2, cov2 = (t.double() for t in (mean1, cov1, mean2, cov2))
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ cov2 @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return distance.clamp(min=0)


def moments(x: Tensor) -> Tensor:
    """Sums over vectors (N, D) up to second order, float64 (D + 1, D + 1): [[N, sum x], [sum x, sum x x']].

    Moments are additive over sets.
    """
    x = torch.cat([torch.ones(len(x), 1, dtype=torch.float64, device=x.device), x.double()], dim=1)
    return x.T @ x


def moments_to_gaussian(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of at least two vectors, from their `moments`."""
    n, mean = moment[0, 0], moment[0, 1:] / moment[0, 0]
    return mean, (moment[1:, 1:] - n * torch.outer(mean, mean)) / (n - 1)


def frechet(moments1: Tensor, moments2: Tensor) -> Tensor:
    """Frechet distance between two sets, from their `moments`."""
    return frechet_distance(*moments_to_gaussian(moments1), *moments_to_gaussian(moments2))


def random_projection(x: Tensor) -> Tensor:
    """Flatten samples (N, *shape), and project more than `MAX_DIM` numbers to `MAX_DIM` fixed random directions.

    The directions are orthonormal and depend on the number of dimensions alone, so that runs on the same data are
    comparable.
    """
    x = x.flatten(1).float()
    if x.shape[1] <= MAX_DIM:
        return x
    normal = torch.randn(x.shape[1], MAX_DIM, generator=torch.Generator().manual_seed(0))
    return x @ torch.linalg.qr(normal).Q.to(x.device)
