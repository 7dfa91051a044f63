"""Scores of probabilistic forecasts, from samples of the forecast (Gneiting & Raftery 2007, JASA 102)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def crps_of_samples(samples: Tensor, y: Tensor) -> Tensor:
    """Continuous ranked probability score E|X - y| - E|X - X'| / 2 of samples (..., n) and outcomes y (...).

    The second mean is over pairs of different samples. The estimate is then unbiased for every n of at least 2 (the
    fair score of Ferro 2014). It costs a sort, not all pairs. Lower is better, and the unit is that of y.

    Raises:
        ValueError: fewer than 2 samples.
    """
    n = samples.shape[-1]
    if n < 2:
        raise ValueError(f"n={n}: an unbiased score needs at least 2 samples.")
    x = samples.double().sort(-1).values
    rank = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=x.device) - n - 1
    spread = 2 * (x * rank).sum(-1) / (n * (n - 1))  # mean of |X - X'| over pairs
    return (x - y.double()[..., None]).abs().mean(-1) - spread / 2


def crps_of_normal(mean: Tensor, std: Tensor, y: Tensor) -> Tensor:
    """Continuous ranked probability score of normal forecasts, in closed form (equation 21)."""
    z = ((y - mean) / std).double()
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    return std * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def pinball(quantile: Tensor, y: Tensor, level: float) -> Tensor:
    """Quantile loss (...) of forecasts of the quantile at a level in (0, 1): its mean is least for the true one."""
    off = y - quantile
    return torch.maximum(level * off, (level - 1) * off)


def interval(samples: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Ends (...) of the central interval that has a share of the forecast, from at least 2 samples (..., n).

    One more draw of the same law is below the k-th smallest of n with probability k / (n + 1). So the quantile of p is
    at place p (n + 1), or between two samples (Weibull 1939; type 6 of Hyndman & Fan 1996). Few samples cover at most
    (n - 1) / (n + 1).
    """
    n = samples.shape[-1]
    levels = [min(max((p * (n + 1) - 1) / (n - 1), 0.0), 1.0) for p in ((1 - share) / 2, (1 + share) / 2)]
    low, high = torch.quantile(samples, torch.tensor(levels, dtype=samples.dtype, device=samples.device), dim=-1)
    return low, high


def covered(samples: Tensor, y: Tensor, share: float) -> Tensor:
    """Whether outcomes y (...) are in the central interval of samples (..., n); the mean should be the share."""
    low, high = interval(samples, share)
    return (low <= y) & (y <= high)


def mean_pinball(samples: Tensor, y: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean quantile loss (...) over levels, with quantiles of samples (..., n)."""
    quantiles = torch.quantile(samples, torch.tensor(levels, dtype=samples.dtype, device=samples.device), dim=-1)
    return torch.stack([pinball(q, y, level) for q, level in zip(quantiles, levels, strict=True)]).mean(0)
