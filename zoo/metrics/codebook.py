"""Use of a codebook: perplexity, the share of codes in use, and the number of those that are not.

Measure whole splits. A batch has fewer vectors than a codebook has codes, and its perplexity misleads.
"""

import torch
from torch import Tensor


def code_perplexity(counts: Tensor) -> float:
    """exp of the entropy of the code frequencies, from 1 to K: counts (..., K), averaged over leading dimensions."""
    share = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
    return float(torch.special.entr(share).sum(-1).exp().mean())


def share_used(counts: Tensor) -> float:
    """Share of codes that occur at least once: counts (..., K)."""
    return float((counts > 0).double().mean())


def dead_codes(counts: Tensor) -> float:
    """Number of codes that do not occur: counts (..., K), averaged over leading dimensions."""
    return float((counts == 0).sum(-1).double().mean())
