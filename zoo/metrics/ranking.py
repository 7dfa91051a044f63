"""Metrics of rankings, over all items: metrics over sampled items mislead (Krichene & Rendle 2020, KDD)."""

import torch
from torch import Tensor


def hits(scores: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Whether each of the k items with the highest scores is relevant, best first: float (B, k).

    Args:
        scores: (B, I); negative infinity leaves an item out.
        relevant: zeros and ones (B, I).
        k: at most I.
    """
    return relevant.gather(1, scores.topk(min(k, scores.shape[1]), dim=1).indices).double()


def recall(scores: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Relevant items among the first k, divided by the most that could be there, (B,).

    This is min(k, relevant items), as in Liang et al. 2018 (1802.05814), equation 9. NaN for users without one.
    """
    return hits(scores, relevant, k).sum(1) / relevant.sum(1).double().clamp(max=k)


def found_at(scores: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Whether a relevant item is among the first k: 0 or 1, (B,); the recall@k of retrieval with one right answer."""
    return hits(scores, relevant, k).amax(1)


def found_by_chance(right: Tensor, n: int, k: int) -> Tensor:
    """Probability that the first k of n items in random order have one of `right` relevant items, (B,).

    This is 1 - C(n - right, k) / C(n, k): items are drawn without replacement. So it is 1 for k = n.

    Args:
        right: numbers of relevant items (B,).
        n: items.
        k: places; more than n count as n.
    """
    place = torch.arange(min(k, n), dtype=torch.float64, device=right.device)
    missed = (n - right.double()[:, None] - place).clamp(min=0) / (n - place)  # given that earlier ones were wrong
    return 1 - missed.prod(1)


def ndcg(scores: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Normalised discounted cumulative gain of the first k, (B,) (Jarvelin & Kekalainen 2002).

    A relevant item in place r, from 1, counts 1 / log2(r + 1). The sum is divided by that of the best ranking. NaN for
    users without a relevant item.
    """
    found = hits(scores, relevant, k)
    discount = 1 / torch.arange(2, found.shape[1] + 2, device=found.device).double().log2()
    best = torch.cat([discount.new_zeros(1), discount.cumsum(0)])
    return (found * discount).sum(1) / best[relevant.sum(1).long().clamp(max=found.shape[1])]


def rank_of(scores: Tensor, right: Tensor) -> Tensor:
    """Place of the right item of each row, from 1, (B,); items of equal score come before it.

    Args:
        scores: (B, I).
        right: column of the right item, int64 (B,).
    """
    return (scores >= scores.gather(1, right[:, None])).sum(1)
