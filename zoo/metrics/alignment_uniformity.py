"""Alignment and uniformity of unit vectors (Wang & Isola 2020, arXiv:2005.10242)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def alignment(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of partners, 0 to 4, a scalar.

    Args:
        x: vectors (N, D) of any length; they are scaled to length one.
        y: the partner of each (N, D).
    """
    return (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()


def uniformity(x: Tensor) -> Tensor:
    """Logarithm of the mean over pairs of exp(-2 squared distance), a scalar from -8 to 0; lower is more uniform.

    Args:
        x: at least two vectors (N, D) of any length; they are scaled to length one.
    """
    distance = torch.pdist(F.normalize(x, dim=1))
    return (-2 * distance.square()).logsumexp(0) - torch.tensor(float(len(distance))).log()
