"""Calibration: whether predictions are right as often as their probabilities state."""

import torch
from torch import Tensor

BINS = 15


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Mean distance of accuracy and confidence over bins of equal width, weighted by their predictions.

    0 is calibrated (Guo et al. 2017, 1706.04599, equation 3). Bin m has confidences in ((m - 1) / bins, m / bins].

    Args:
        confidence: probability of the predicted class (N,).
        right: whether it is the true class (N,).
        bins: number of bins.
    """
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1  # (N,)
    gap = right.double() - confidence.double()
    sums = torch.zeros(bins, dtype=torch.float64, device=gap.device).index_add(0, place, gap)
    return float(sums.abs().sum() / len(gap))
