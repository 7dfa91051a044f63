"""Share of problems that at least one of k answers solves."""

from math import comb

import torch
from torch import Tensor


def pass_at_k(right: Tensor, drawn: int, k: int) -> Tensor:
    """Unbiased estimate, for each problem, of the probability that one of k answers is right: double (N,).

    1 - C(n - c, k) / C(n, k), with c right ones of n drawn answers (Chen et al. 2021, 2107.03374, equation 1). The
    plug-in estimate 1 - (1 - c / n)^k is too low for k > 1.

    Args:
        right: numbers of right answers (N,).
        drawn: answers that were drawn to each problem.
        k: at most `drawn`.

    Raises:
        ValueError: k is not from 1 to `drawn`.
    """
    if not 1 <= k <= drawn:
        raise ValueError(f"k={k}: not from 1 to the {drawn} answers.")
    return torch.tensor([1 - comb(drawn - c, k) / comb(drawn, k) for c in right.tolist()], dtype=torch.float64)
