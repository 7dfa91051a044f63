"""Training by sampling: draws of rows in which rare categories are frequent."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.nn.distributions.mixtures import categorical_from_uniform


class TrainingBySampling:
    """Draws of rows by their categories (Xu et al. 2019, arXiv:1907.00503, section 4.3).

    A choice is drawn uniformly. One of its places is drawn by the logarithm of one plus its number of rows, and a row
    with this place uniformly. Without choices, rows are drawn uniformly.

    Args:
        x: encoded rows (N, F) of the training data.
        chosen_at: places of all choices in a row, (C,).
        choices: neighbouring places that are one choice.
    """

    def __init__(self, x: Tensor, chosen_at: Tensor, choices: Sequence[slice]) -> None:
        chosen = x[:, chosen_at.to(x.device)]
        self.x, self.counts = x, chosen.sum(0)
        #: Probability of each place, all choices together, (C,).
        self.shares = torch.cat([self.counts[:0], *(log_shares(self.counts[c]) / len(choices) for c in choices)])
        codes = [chosen[:, choice].argmax(1) for choice in choices]
        #: Rows of each choice by their places in it, (choices x N,).
        self.order = torch.cat([code.argsort(stable=True) for code in codes]) if codes else None
        self.starts = self.counts.long().cumsum(0) - self.counts.long()

    def to(self, device: torch.device) -> "TrainingBySampling":
        """Move all tensors."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def draw_places(self, n: int) -> Tensor:
        """Places among those of all choices, int64 (n,); zeros without choices."""
        uniform = torch.rand(n, device=self.x.device)
        return categorical_from_uniform(self.shares, uniform) if len(self.shares) else torch.zeros_like(uniform).long()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Rows (n, F), and the places that they were drawn for, int64 (n,)."""
        places, uniform = self.draw_places(n), torch.rand(n, dtype=torch.float64, device=self.x.device)
        if self.order is None:
            return self.x[(uniform * len(self.x)).long()], places
        rank = (uniform * self.counts[places]).long()
        return self.x[self.order[self.starts[places] + rank]], places


def log_shares(counts: Tensor) -> Tensor:
    """Shares of the logarithm of one plus each count (K,)."""
    nats = counts.log1p()
    return nats / nats.sum()
