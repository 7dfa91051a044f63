"""Contrastive losses of pairs, from their similarities.

`equal` marks pairs of rows that are alike, such as two pictures with the same caption. They are neither right nor wrong
as negatives, so the losses leave them out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def infonce(logits: Tensor, equal: Tensor | None = None) -> Tensor:
    """Cross-entropy of the right partner among B, in nats per row (B,) (van den Oord et al. 2018, 1807.03748).

    log B minus the mean is a lower bound on the mutual information of the pairs, for independent negatives; it is at
    most log B.

    Args:
        logits: scores (B, B); row i belongs to column i.
        equal: bool (B, B), columns to leave out of a row; its diagonal is ignored.
    """
    if equal is not None:
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(equal & ~own, -torch.inf)
    return logits.logsumexp(1) - logits.diagonal()


def symmetric_infonce(logits: Tensor, equal: Tensor | None = None) -> Tensor:
    """Mean of `infonce` over rows and over columns, a scalar (Radford et al. 2021, CLIP, 2103.00020, figure 3)."""
    return (infonce(logits, equal) + infonce(logits.T, None if equal is None else equal.T)).mean() / 2


def sigmoid_loss(logits: Tensor, equal: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of all pairs, summed over columns and averaged over rows (Zhai et al. 2023, 2303.15343).

    Args:
        logits: log-odds (B, B) that row and column belong together; they do on the diagonal.
        equal: see `infonce`.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    nats = F.softplus(torch.where(own, -logits, logits))
    if equal is not None:
        nats = nats.masked_fill(equal & ~own, 0.0)
    return nats.sum(1).mean()


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the other view among the 2 B - 1 other vectors, a scalar (Chen et al. 2020, 2002.05709).

    Args:
        first: one view of each sample (B, D).
        second: the other view (B, D).
        temperature: that cosine similarities are divided by.
    """
    z = F.normalize(torch.cat([first, second]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return F.cross_entropy(logits, partner)
