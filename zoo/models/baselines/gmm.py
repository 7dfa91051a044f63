"""What every generative model of images or vectors must beat: models that are fitted in closed form or by EM."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.models.baselines.base import Density, check_dim
from zoo.nn.distributions.mixtures import GaussianMixture

GMM_DIM = 1024  # each component has a matrix of its square
EM_WORK = 50_000_000  # samples x components x levels, at most: an image of 784 values then takes a minute or two


@register("model", "gmm")
class GaussianMixtureModel(Density):
    """Gaussian mixture with full covariances, fitted by EM.

    Images get normal noise before, as a value that is the same in all training images has an infinite density. Before
    it is fitted, the model is a standard normal.

    Args:
        spec: what the data looks like; at most 1,024 values.
        components: at most so many; fewer where there are fewer samples.
        noise: its standard deviation, for images.
        samples: training samples to fit to, at most.
        seed: of the start of EM and of the noise.

    Raises:
        ZooError: data of too many values.
    """

    paper = "Dempster, Laird & Rubin 1977 (JRSS B 39)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        components: PositiveInt = 10,
        noise: NonNegative = 0.05,
        samples: PositiveInt = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        check_dim(self, GMM_DIM)
        self.fit_on, self.std, self.seed = samples, noise if isinstance(spec.x, Image) else 0.0, seed
        self.density = GaussianMixture(spec.size, components)
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
        """Draws (n, *shape); images are cut to [0, 1]."""
        self.check_condition(condition)
        return self.shaped(self.density.sample(n, generator))
