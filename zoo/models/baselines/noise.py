"""Uniform noise over the range of the data."""

import math

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import FIT_ON, Fitted


@register("model", "noise")
class UniformNoise(ExactLikelihood, Fitted):
    """Uniform noise: of images every level, of vectors every point in the box around the training data.

    A vector outside the box has no probability, so `log_prob` is -inf there. `loss` is the cost of a point inside, the
    logarithm of the box's volume, and `outside` says how many are not. Before it is fitted, the box is [0, 1]^D.
    """

    paper = "Jaynes 1957 (Physical Review 106)"
    low: Tensor  # (D,), vectors only
    high: Tensor  # (D,)

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.likelihood_kind = "discrete" if isinstance(spec.x, Image) else "continuous"
        size, self.fit_on = (0, 1) if isinstance(spec.x, Image) else (spec.size, FIT_ON)
        self.register_buffer("low", torch.zeros(size))
        self.register_buffer("high", torch.ones(size))

    def fit(self, data: Tensor) -> None:
        """The extremes of vectors; of images nothing need be known."""
        if isinstance(self.spec.x, Vector):
            self.low.copy_(data.min(0).values)
            self.high.copy_(data.max(0).values.clamp(min=data.min(0).values + 1e-6))  # a constant has no width

    @property
    def cost(self) -> Tensor:
        """Nats of every sample that is possible, ()."""
        if isinstance(self.spec.x, Image):
            return self.low.new_tensor(self.spec.size * math.log(self.spec.image.levels))
        return (self.high - self.low).log().sum()

    def possible(self, x: Tensor) -> Tensor:
        """Inside the box? (B,)"""
        if isinstance(self.spec.x, Image):
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        return ((x >= self.low) & (x <= self.high)).all(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats of a possible sample, and the share of samples that are none."""
        return {"loss": self.cost, "outside": 1 - self.possible(batch.x).float().mean()}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,)."""
        return torch.where(self.possible(x), -self.cost, -torch.inf)

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws (n, *shape)."""
        self.check_condition(condition)
        if isinstance(self.spec.x, Image):
            level = torch.randint(self.spec.image.levels, (n, *self.spec.shape), generator=generator)
            return level.to(self.device) / (self.spec.image.levels - 1)
        return self.low + (self.high - self.low) * torch.rand(n, self.spec.size, generator=generator).to(self.low)
