"""Embedding of noise levels, class labels and texts, the conditions of denoising networks."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.nn.blocks.constants import FixedConstants

N_FREQUENCIES = 32  # of the noise level


class Context(NamedTuple):
    """Features of a text, which a network attends to.

    Args:
        tokens: (B, S, D).
        real: False for padding, bool (B, S); at least one position of each row is True.
    """

    tokens: Tensor
    real: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the real positions, (B, D)."""
        weight = self.real[..., None].to(self.tokens.dtype)
        return (self.tokens * weight).sum(1) / weight.sum(1)

    @property
    def mask(self) -> Tensor:
        """Where attention is allowed, (B, 1, 1, S)."""
        return self.real[:, None, None]


class NoiseEmbedding(FixedConstants):
    """Noise levels (B,), class labels (B,) and the mean of a text's features -> one vector (B, width).

    The level is a quarter of the log-SNR, from about -5 to 5. It becomes sines and cosines of frequencies from 1/8 to
    16, then two linear layers. The row after the last class stands for no class.

    Args:
        width: of the vector.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; with more than one, they are (B, n_levels).
        context_width: of a text's features; 0 ignores them.
    """

    frequencies: Tensor

    def __init__(self, width: int, n_classes: int, n_levels: int = 1, context_width: int = 0) -> None:
        super().__init__()
        frequencies = torch.logspace(-3, 4, N_FREQUENCIES, base=2.0, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * N_FREQUENCIES * n_levels, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(n_classes + 1, width) if n_classes else None
        if self.labels is not None:
            nn.init.normal_(self.labels.weight, std=1 / math.sqrt(width))
        self.n_classes = n_classes
        self.text = nn.Linear(context_width, width) if context_width else None

    def forward(self, noise: Tensor, y: Tensor | None, context: Context | None = None) -> Tensor:
        """Levels (B,) or (B, n_levels), labels (B,) or None for no class, and the features of texts -> (B, width)."""
        angles = (noise[..., None] * self.frequencies).flatten(1)  # (B, 32 * n_levels)
        h = self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1).to(next(self.mlp.parameters()).dtype))
        if self.text is not None and context is not None:
            h = h + self.text(context.mean)
        if self.labels is None:
            return h
        y = torch.full((noise.shape[0],), self.n_classes, device=noise.device) if y is None else y
        return h + self.labels(y)
