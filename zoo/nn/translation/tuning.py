"""Tuning of a log-linear model's weights by minimum risk: the expected BLEU of lists of translations."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

N = 4  # longest n-grams of BLEU
SIZE = 2 * N + 2  # statistics of a translation


def bleu_statistics(output: Sequence[str], reference: Sequence[str]) -> list[int]:
    """Numbers of matching n-grams and of n-grams for n from 1 to 4, length of the output and of the reference."""
    matches, totals = [], []
    for n in range(1, N + 1):
        made, right = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (output, reference))
        matches.append(sum((made & right).values()))
        totals.append(max(len(output) - n + 1, 0))
    return [*matches, *totals, len(output), len(reference)]


def bleu_of(statistics: Tensor) -> Tensor:
    """BLEU from 0 to 1 (Papineni et al. 2002) of sums of `bleu_statistics` (..., SIZE), also fractional ones."""
    matches, totals = statistics[..., :N], statistics[..., N : 2 * N]
    precision = (matches.clamp(min=1e-9) / totals.clamp(min=1e-9)).log().mean(-1)
    brevity = (1 - statistics[..., -1] / statistics[..., -2].clamp(min=1e-9)).clamp(max=0)
    return (precision + brevity).exp()


def minimum_risk(
    features: Tensor, statistics: Tensor, weights: Tensor, positive: Sequence[int] = (), steps: int = 200
) -> Tensor:
    """Weights of the highest expected BLEU (Smith & Eisner 2006): p(translation) is a softmax of scores.

    The scale of the weights is free, so that the distribution can become as sharp as is useful.

    Args:
        features: of the translations of each sentence (N, K, F); rows that repeat others are padding.
        statistics: their `bleu_statistics` (N, K, SIZE).
        weights: to begin with (F,).
        positive: indices of weights that stay positive.
        steps: of gradient ascent by Adam.
    """
    features, statistics = features.double(), statistics.double()
    padding = torch.full(features.shape[:2], 0.0, dtype=torch.float64)
    padding[:, 1:][(features[:, 1:] == features[:, :1]).all(2)] = -torch.inf
    spread = features.flatten(0, 1).std(0).clamp(min=1e-6)
    w = (weights.double() * spread).clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        p = (features / spread @ w + padding).softmax(1)  # (N, K)
        (-bleu_of((p[..., None] * statistics).sum((0, 1)))).backward()
        optimizer.step()
        with torch.no_grad():
            w[list(positive)] = w[list(positive)].clamp(min=0)
    return (w / spread).detach()
