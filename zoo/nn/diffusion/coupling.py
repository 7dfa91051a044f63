"""Couplings: which noise goes with which sample of a batch."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Base class of couplings; it pairs at random."""

    registered_name: ClassVar[str]

    def pair(self, x: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
        """Reorder the noise (B, *shape) for samples x (B, *shape) of classes y (B,); None for no classes."""
        return noise


@register("coupling", "independent")
@dataclass(frozen=True, kw_only=True)
class Independent(Coupling):
    """Noise and data are independent."""


@register("coupling", "reflow")
@dataclass(frozen=True, kw_only=True)
class Reflow(Coupling):
    """Noise and the sample that another model's ODE makes of it (Liu et al. 2022, arXiv:2209.03003).

    `model=rectified_flow init_from=RUN` makes the pairs, and trains on them instead of data.

    Args:
        pairs: number of pairs, made before the training.
    """

    pairs: PositiveInt = 4096


@register("coupling", "ot")
@dataclass(frozen=True, kw_only=True)
class OptimalTransport(Coupling):
    """Least total squared distance within a batch (Tong et al. 2023, arXiv:2302.00482; Pooladian et al. 2023).

    With classes it is solved within each class. Across classes, the noise of a class would not be standard normal.
    """

    @torch.no_grad()
    def pair(self, x: Tensor, noise: Tensor, y: Tensor | None) -> Tensor:
        """See `Coupling`."""
        from scipy.optimize import linear_sum_assignment  # a second of import time

        paired = noise.clone()
        labels = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        for label in labels.unique():
            rows = (labels == label).nonzero()[:, 0]
            # |x - e|^2 without the terms that do not depend on the assignment
            cost = -(x[rows].flatten(1) @ noise[rows].flatten(1).T).float()
            paired[rows] = noise[rows[torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1]).to(rows.device)]]
        return paired
