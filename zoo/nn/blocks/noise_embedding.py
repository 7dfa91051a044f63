"""Embedding of noise levels and class labels, the conditions of denoising networks."""

import math

import torch
from torch import Tensor, nn

from zoo.nn.blocks.constants import FixedConstants

N_FREQUENCIES = 32  # of the noise level


class NoiseEmbedding(FixedConstants):
    """Noise levels (B,) and class labels (B,) -> one vector (B, width).

    The level is a quarter of the log-SNR, from about -5 to 5. It becomes sines and cosines of frequencies from 1/8 to
    16, then two linear layers. The row after the last class stands for no class.

    Args:
        width: of the vector.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; with more than one, they are (B, n_levels).
    """

    frequencies: Tensor

    def __init__(self, width: int, n_classes: int, n_levels: int = 1) -> None:
        super().__init__()
        frequencies = torch.logspace(-3, 4, N_FREQUENCIES, base=2.0, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * N_FREQUENCIES * n_levels, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(n_classes + 1, width) if n_classes else None
        if self.labels is not None:
            nn.init.normal_(self.labels.weight, std=1 / math.sqrt(width))
        self.n_classes = n_classes

    def forward(self, noise: Tensor, y: Tensor | None) -> Tensor:
        """Levels (B,) or (B, n_levels) and labels (B,), or None for no class -> (B, width)."""
        angles = (noise[..., None] * self.frequencies).flatten(1)  # (B, 32 * n_levels)
        h = self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1).to(next(self.mlp.parameters()).dtype))
        if self.labels is None:
            return h
        y = torch.full((noise.shape[0],), self.n_classes, device=noise.device) if y is None else y
        return h + self.labels(y)
