"""Masked diffusion: which tokens are hidden, and the bound that counts them.

The bound of absorbing diffusion is an integral over time of (1 / t) times the cross-entropy of the hidden tokens (Sahoo
et al. 2024, arXiv:2406.07524; Shi et al. 2024, arXiv:2406.04329). Given the number m of hidden tokens, the time has no
further effect. The integral over it is done exactly, which leaves a sum over m:

    -log p(x) <= sum_{m=1}^{L} (1 / m) E_{|M| = m} sum_{i in M} -log p(x_i | x_j, j not in M)

It is the mean over all orders of the chain rule (Ou et al. 2024, arXiv:2406.03736), without a variance from 1 / t.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["linear", "cosine"]


def masked_share(ratio: Tensor, schedule: Schedule) -> Tensor:
    """Share of hidden tokens after a ratio of the steps: 1 - r, or cos(pi r / 2) (Chang et al. 2022, section 3.3)."""
    return 1 - ratio if schedule == "linear" else torch.cos(math.pi / 2 * ratio)


def ratio_of_share(share: Tensor, schedule: Schedule) -> Tensor:
    """Inverse of `masked_share`."""
    return 1 - share if schedule == "linear" else torch.acos(share) * 2 / math.pi


def draw_counts(lengths: Tensor, u: Tensor, schedule: Schedule = "linear") -> Tensor:
    """Numbers of tokens to hide (B,), from 1 to the length.

    Args:
        lengths: tokens of each sample that may be hidden, (B,).
        u: uniform numbers in [0, 1), (B,).
        schedule: "linear" gives every number the same probability, as the bound requires; "cosine" hides more.
    """
    if schedule == "cosine":
        return (masked_share(u, schedule) * lengths).ceil().long().clamp(min=1)
    return torch.minimum((u * lengths).long() + 1, lengths.clamp(min=1))


def choose_hidden(allowed: Tensor, counts: Tensor, noise: Tensor) -> Tensor:
    """Choose the tokens to hide (B, T): exactly `counts` (B,) of the allowed ones, every set equally likely.

    Args:
        allowed: which tokens may be hidden, (B, T).
        counts: how many, (B,).
        noise: uniform numbers (B, T).
    """
    rank = noise.masked_fill(~allowed, torch.inf).argsort(1).argsort(1)
    return (rank < counts[:, None]) & allowed


def counted_bound(nats: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Unbiased estimate of the bound on -log p, by position (B, T), in nats; its sum over positions is the bound's.

    Args:
        nats: cross-entropies of the hidden tokens, 0 elsewhere, (B, T).
        lengths: tokens that may be hidden, (B,).
        counts: hidden ones, uniform from 1 to the length, (B,).
    """
    return nats * (lengths / counts)[:, None]
