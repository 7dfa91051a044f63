"""Resampled training data."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import PixelSpace
from zoo.core.spaces import Audio, Image, Series, Table, Vector, Video
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.baselines.base import Fitted
from zoo.nn.distributions.likelihoods import to_level


@register("model", "copies")
class TrainingSetBootstrap(Fitted):
    """Bootstrap of the training set: samples are stored training data. A memorisation test must flag it.

    There is no likelihood. `loss` is the squared distance to the nearest stored sample, summed over dimensions. Before
    fitting, one sample of zeros is stored.

    Args:
        spec: what the data looks like.
        max_samples: most training samples to store.
    """

    accepts = (Image, Vector, Table, Series, Video, Audio)
    paper = "Efron 1979 (Annals of Statistics 7)"
    stored: Tensor  # (N, *shape); images and videos uint8, or int32 for more than 256 levels

    def __init__(self, spec: DataSpec, *, max_samples: PositiveInt = 10_000) -> None:
        super().__init__(spec)
        self.fit_on = max_samples
        zero = torch.zeros(1, *spec.shape)
        self.levels = spec.x.levels if isinstance(spec.x, PixelSpace) else 0
        self.register_buffer("stored", to_uint8(zero, self.levels) if self.levels else zero)

    def statistics(self, batch: Batch) -> Tensor:
        """Images and videos as levels; vectors as they are."""
        return to_uint8(batch.x, self.levels) if self.levels else batch.x

    def fit(self, data: Tensor) -> None:
        """Store the data."""
        self.stored = data.to(self.device)

    def stored_samples(self, index: Any = slice(None)) -> Tensor:
        """Stored samples, in the range of the data."""
        chosen = self.stored[index]
        return chosen / (self.levels - 1) if self.levels else chosen

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared distance to the nearest stored sample."""
        x = batch.x
        nearest = torch.cdist(x.flatten(1), self.stored_samples().flatten(1)).argmin(1)
        return {"loss": (x - self.stored_samples(nearest)).square().flatten(1).sum(1).mean()}

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Stored samples, drawn with replacement: (n, *shape)."""
        self.check_condition(condition)
        return self.stored_samples(torch.randint(len(self.stored), (n,), generator=generator).to(self.device))


def to_uint8(x: Tensor, levels: int) -> Tensor:
    """Images in [0, 1] as level numbers, in bytes for up to 256 levels."""
    return to_level(x, levels).to(torch.uint8 if levels <= 256 else torch.int32)
