"""Distances between spectrograms."""

from torch import Tensor


def spectral_convergence(reference: Tensor, estimate: Tensor) -> Tensor:
    """|| |S| - |S'| || / || |S| || of magnitudes (..., F, T), Frobenius norms, (...) (Arik et al. 2018, 1808.06719)."""
    return (reference - estimate).flatten(-2).norm(dim=-1) / reference.flatten(-2).norm(dim=-1)
