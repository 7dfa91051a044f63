"""Dropout (Srivastava et al. 2014, JMLR 15) that draws quickly on a processor."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16  # of 16 random bits: probabilities are multiples of their inverse


def dropout(x: Tensor, p: float) -> Tensor:
    """Each number is zero with probability p, and else divided by 1 - p, so that means stay.

    On a processor torch draws 64 random bits for each; here they do for four, in a quarter of the time: of a
    transformer's step that was a quarter in all. There p is rounded to a multiple of 2^-16.
    """
    if p <= 0 or x.device.type != "cpu":
        return F.dropout(x, p)
    if quantize_p(p) >= 1:
        return x * 0
    return x * keep_mask(x, p) * (1 / (1 - quantize_p(p)))


def keep_mask(x: Tensor, p: float) -> Tensor:
    """Zeros, each with probability `rounded(p)`, and ones, in the shape and type of a tensor on a processor."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    # Numbers at once: from booleans they would take nine times as long, and a product with booleans six times.
    return torch.ge(drawn, round(p * LEVELS) - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))


def quantize_p(p: float) -> float:
    """A probability that 16 random bits can have."""
    return round(p * LEVELS) / LEVELS


class Dropout(nn.Dropout):
    """`dropout` while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return dropout(x, self.p) if self.training else x
