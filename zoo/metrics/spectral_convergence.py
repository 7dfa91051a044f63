"""Distances between spectrograms."""

import torch
from torch import Tensor


def spectral_convergence(reference: Tensor, estimate: Tensor) -> Tensor:
    """|| |S| - |S'| || / || |S| || of magnitudes (..., F, T), Frobenius norms, (...) (Arik et al. 2018, 1808.06719)."""
    return (reference - estimate).flatten(-2).norm(dim=-1) / reference.flatten(-2).norm(dim=-1)


def log_spectral_distance(reference: Tensor, estimate: Tensor, decibels: float = 60.0) -> Tensor:
    """Root mean square over frequencies of the difference in decibels, mean over frames (Gray & Markel 1976), (...).

    Args:
        reference: magnitudes (..., F, T).
        estimate: other magnitudes.
        decibels: magnitudes further below the loudest one of the reference are raised to this distance.
    """
    floor = reference.amax((-2, -1), keepdim=True) * 10 ** (-decibels / 20)
    a, b = (20 * torch.maximum(s, floor).clamp(min=1e-12).log10() for s in (reference, estimate))
    return (a - b).square().mean(-2).sqrt().mean(-1)
