"""Mu-law companding: samples of sound as 256 levels that are finer near zero (ITU-T G.711)."""

import math

import torch
from torch import Tensor

LEVELS = 256


def mu_law_encode(x: Tensor, levels: int = LEVELS) -> Tensor:
    """Samples in [-1, 1] -> codes from 0 to levels - 1, int64: sign(x) log(1 + m |x|) / log(1 + m) on a uniform grid.

    Samples outside are clamped; m is levels - 1.
    """
    mu = levels - 1
    x = x.clamp(-1, 1)
    squeezed = x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)
    return ((squeezed + 1) / 2 * mu).round().long()


def mu_law_decode(codes: Tensor, levels: int = LEVELS) -> Tensor:
    """Codes -> samples in [-1, 1], the middle of each step in the squeezed domain."""
    mu = levels - 1
    squeezed = codes.to(torch.get_default_dtype()) / mu * 2 - 1
    return squeezed.sign() * (squeezed.abs() * math.log1p(mu)).expm1() / mu
