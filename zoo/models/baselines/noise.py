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
    """Uniform noise: over all levels of images, and over the bounding box of the training vectors.

    `log_prob` is -inf for vectors outside the box. `loss` is the negative log-density inside, the logarithm of the
    volume, and `outside` is the share of samples outside. Before fitting, the box is [0, 1]^D.

    Args:
        spec: what the data looks like.
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
        """Set the bounding box of vectors."""
        if isinstance(self.spec.x, Vector):
            self.low.copy_(data.min(0).values)
            self.high.copy_(data.max(0).values.clamp(min=data.min(0).values + 1e-6))  # a constant value has width 0

    @property
    def nll(self) -> Tensor:
        """Negative log-likelihood of every sample in the support, nats ()."""
        if isinstance(self.spec.x, Image):
            return self.low.new_tensor(self.spec.size * math.log(self.spec.image.levels))
        return (self.high - self.low).log().sum()

    def in_support(self, x: Tensor) -> Tensor:
        """Whether samples are inside the box, (B,)."""
        if isinstance(self.spec.x, Image):
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        return ((x >= self.low) & (x <= self.high)).all(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats of a sample in the support, and the share of samples outside."""
        return {"loss": self.nll, "outside": 1 - self.in_support(batch.x).float().mean()}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,)."""
        return torch.where(self.in_support(x), -self.nll, -torch.inf)

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws (n, *shape)."""
        self.check_condition(condition)
        if isinstance(self.spec.x, Image):
            level = torch.randint(self.spec.image.levels, (n, *self.spec.shape), generator=generator)
            return level.to(self.device) / (self.spec.image.levels - 1)
        return self.low + (self.high - self.low) * torch.rand(n, self.spec.size, generator=generator).to(self.low)
