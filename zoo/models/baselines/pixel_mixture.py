"""Mixtures of independent pixels."""

import math

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Positive, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import Fitted
from zoo.models.baselines.copies import to_uint8
from zoo.models.baselines.gmm import EM_WORK
from zoo.nn.distributions.likelihoods import to_level
from zoo.nn.distributions.mixtures import PixelMixture


@register("model", "pixel_mixture")
class PixelMixtureModel(ExactLikelihood, Fitted):
    """Mixture of components with independent categorical pixels, fitted by EM.

    With two levels it is the Bernoulli mixture. With one component, it is the frequency of each level at each pixel.
    Before fitting, all levels are equally likely.

    Args:
        spec: what the data looks like. Probabilities take 4 x components x levels x values bytes.
        n_components: number of components.
        smoothing: pseudo-observations of each pixel in a component, spread evenly over the levels.
        steps: most steps of EM.
        max_samples: most training images; fewer if samples x components x levels would exceed 50,000,000.
        seed: of the initialisation of EM.
    """

    accepts = (Image,)
    paper = "McLachlan & Peel 2000 (Finite Mixture Models); Bishop 2006, section 9.3.3"
    likelihood_kind = "discrete"

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_components: PositiveInt = 20,
        smoothing: Positive = 1.0,
        steps: PositiveInt = 40,
        max_samples: PositiveInt = 60_000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        self.fit_on = max(min(max_samples, EM_WORK // (n_components * spec.image.n_levels)), 1)
        self.smoothing, self.em_steps, self.seed = smoothing, steps, seed
        self.density = PixelMixture(spec.size, spec.image.levels, n_components)

    def statistics(self, batch: Batch) -> Tensor:
        """Levels (B, D)."""
        return to_uint8(batch.x, self.spec.image.levels).flatten(1)

    def fit(self, data: Tensor) -> None:
        """EM on levels (N, D), on the device of the model."""
        self.density.fit(data.to(self.device), self.smoothing, self.em_steps, seed=self.seed)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per image, and bits per dimension."""
        loss = super().loss(batch)["loss"]
        return {"loss": loss, "bits_per_dim": loss / (self.spec.size * math.log(2))}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log probability, nats (B,)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.density.log_prob(to_level(x, self.spec.image.levels).flatten(1))

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws (n, C, H, W)."""
        self.check_condition(condition)
        return self.density.sample(n, generator).unflatten(1, self.spec.shape) / (self.spec.image.levels - 1)

    def charts(self) -> dict[str, list[str]]:
        """Nats and bits per dimension."""
        return {"loss": ["train/loss", "val/loss"], "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"]}
