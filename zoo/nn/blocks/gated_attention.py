"""Self-attention of GANs: all pixels see each other, through a gate that begins closed."""

import torch
from torch import Tensor, nn

from zoo.nn.blocks.layers import maybe_spectral_norm

SHRINK = 8  # of the feature maps inside the attention, as in the paper


class GatedSelfAttention(nn.Module):
    """Feature maps x (B, C, H, W) -> x + gate * attention(x) (Zhang et al. 2018, SAGAN, arXiv:1805.08318, section 3).

    The gate is a learned number that begins at zero, so the network begins as one without attention.

    The product is written out: torch's fused attention on processors does not have the second derivatives that
    gradient penalties need.

    Args:
        channels: C; queries, keys and values have an eighth of it.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
    """

    def __init__(self, channels: int, spectral_norm: bool = False) -> None:
        super().__init__()
        inner = max(channels // SHRINK, 1)
        self.query, self.key, self.value = (
            maybe_spectral_norm(nn.Conv2d(channels, inner, 1, bias=False), spectral_norm) for _ in range(3)
        )
        self.out = maybe_spectral_norm(nn.Conv2d(inner, channels, 1, bias=False), spectral_norm)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))  # (B, C / 8, H W)
        weights = (query.mT @ key).softmax(dim=2)  # (B, H W, H W): of each pixel, over all pixels
        seen = (value @ weights.mT).unflatten(2, x.shape[-2:])  # (B, C / 8, H, W)
        return x + self.gate * self.out(seen)


def attention_at(size: tuple[int, int], largest: int, channels: int, spectral_norm: bool) -> list[nn.Module]:
    """Attention where both sides of the feature maps have at most `largest` pixels, else nothing."""
    return [GatedSelfAttention(channels, spectral_norm)] if max(size) <= largest else []
