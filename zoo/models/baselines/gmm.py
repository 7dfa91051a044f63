"""Gaussian mixtures."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.models.baselines.base import Density, check_dim
from zoo.nn.distributions.mixtures import GaussianMixture

GMM_DIM = 1024  # most values: each component has a covariance matrix
EM_WORK = 50_000_000  # most samples x components x levels: one to two minutes for images of 784 values


@register("model", "gmm")
class GaussianMixtureModel(Density):
    """Gaussian mixture with full covariances, fitted by EM.

    Images get normal noise: a value that is equal in all training images has an infinite density. Before fitting, the
    model is a standard normal.

    Args:
        spec: what the data looks like; at most 1,024 values.
        n_components: most components; fewer for fewer samples.
        noise: standard deviation of the noise on images.
        max_samples: most training samples.
        seed: of the initialisation of EM and of the noise.

    Raises:
        ZooError: data of too many values.
    """

    paper = "Dempster, Laird & Rubin 1977 (JRSS B 39)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_components: PositiveInt = 10,
        noise: NonNegative = 0.05,
        max_samples: PositiveInt = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        check_dim(self, GMM_DIM)
        self.fit_on, self.std, self.seed = max_samples, noise if isinstance(spec.x, Image) else 0.0, seed
        self.density = GaussianMixture(spec.size, n_components)
        self.density.weights[0] = 1

    def fit(self, data: Tensor) -> None:
        """EM on (N, D)."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(data.shape, generator=generator) if self.std else 0.0
        self.density.fit(data + self.std * noise, self.seed)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log density, nats (B,)."""
        return self.density.log_prob(x.flatten(1))

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws (n, *shape), clamped to [0, 1] for images."""
        self.check_condition(condition)
        return self.shaped(self.density.sample(n, generator))
