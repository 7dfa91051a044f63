"""Norms over the channels of each position."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.transformer_config import NormKind


class ZeroCenteredRMSNorm(nn.Module):
    """RMSNorm with a gain of 1 + weight, so that weight decay pulls the gain to 1 (Gemma, 2403.08295).

    Args:
        size: channels.
        eps: added to the mean square; None is the smallest step of the type.
    """

    def __init__(self, size: int, eps: float | None = None) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return F.rms_norm(x, self.weight.shape, 1 + self.weight, self.eps)


def make_norm(kind: NormKind, size: int, eps: float = 0.0) -> nn.Module:
    """LayerNorm (Ba et al. 2016, 1607.06450), or RMSNorm (Zhang & Sennrich 2019, 1910.07467).

    RMSNorm has a gain, a gain of 1 + weight (`ZeroCenteredRMSNorm`), or none.
    """
    if kind == "layernorm":
        return nn.LayerNorm(size, eps=eps or 1e-5)
    if kind == "rmsnorm_zero_centered":
        return ZeroCenteredRMSNorm(size, eps or None)
    return nn.RMSNorm(size, eps=eps or None, elementwise_affine=kind == "rmsnorm")
