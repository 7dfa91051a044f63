"""Frechet distance between Gaussians fitted to two sets of vectors (Dowson & Landau 1982).

In Inception features it is known as FID; in others its name must say which. The estimate is biased upwards,
by an amount that grows with the dimension and falls with the number of samples: compare values only at equal
features and equal numbers of samples.
"""

import torch
from torch import Tensor

LARGEST = 64  # dimensions that `reduced` leaves: a few hundred samples still give a usable covariance


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """||mean1 - mean2||^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2)), in float64, never negative.

    The trace of the square root is the sum of the roots of the eigenvalues of S cov2 S with S = cov1^(1/2):
    symmetric, so real whatever the rank of the covariances.

    Args:
        mean1: (D,).
        cov1: (D, D), symmetric, positive semi-definite.
        mean2: (D,).
        cov2: (D, D).
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

    The moments of two sets together are the sum of their moments, whoever holds them.
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
    """Samples (N, *shape) as vectors of at most `LARGEST` numbers, where needed in fixed random directions.

    The directions are orthonormal and depend on the number of dimensions alone, so that values of different
    runs on the same data can be compared.
    """
    x = x.flatten(1).float()
    if x.shape[1] <= LARGEST:
        return x
    normal = torch.randn(x.shape[1], LARGEST, generator=torch.Generator().manual_seed(0))
    return x @ torch.linalg.qr(normal).Q.to(x.device)
