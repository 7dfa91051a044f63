"""Base class of autoencoders of images whose latents keep height and width: first stages of two."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.core.space import PixelSpace, Space
from zoo.core.spaces import Image
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.latent_density import LatentDensity
from zoo.nn.distributions.likelihoods import Likelihood as Observation


class SpatialAutoencoderModel(LatentDensity, Model):
    """An encoder from images to maps (B, D, h, w), and a decoder to the parameters of p(x | z).

    A subclass has the settings `likelihood`, `network` and `optimizer`, calls `build_networks`, sets `density`, and
    writes `maps`, `latent_space`, `to_latent`, `from_latent` and `draw_maps`.

    Args:
        spec: what the data looks like.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)
    code_dim: int  # D

    def build_networks(self, n_latent: int, n_code: int) -> None:
        """Build the likelihood and the network, whose encoder returns and whose decoder takes so many maps."""
        self.likelihood: Observation = self.build_component("likelihood", "likelihood", self.spec)
        self.likelihood_kind = self.likelihood.kind
        given = self.spec.shape, n_latent, n_code, self.likelihood.params_shape[0]
        self.network: Any = self.build_component("network", "spatial_autoencoder", *given, method="decode")
        self.code_dim, self.grid = n_code, tuple(self.network.grid)

    # -- latents -------------------------------------------------------------------------------------------------

    def maps(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> the latent maps (B, D, h, w) that the decoder takes, without randomness."""
        raise NotImplementedError

    def draw_maps(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n latent maps (n, D, h, w) from simple statistics of the training data."""
        raise NotImplementedError

    def to_images(self, z: Tensor) -> Tensor:
        """Latent maps (B, D, h, w) -> the mean of p(x | z), in [0, 1] for images and in [-1, 1] for sounds."""
        lowest = 0 if isinstance(self.spec.x, PixelSpace) else -1
        return self.likelihood.mean(self.network.decode(z)).clamp(lowest, 1)

    def observation_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (B,), for latent maps z (B, D, h, w)."""
        return self.likelihood.log_prob(self.network.decode(z), x)

    # -- abilities -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) -> latent maps as vectors (B, D h w)."""
        return self.maps(x).flatten(1)

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latent maps as vectors (B, D h w) -> images."""
        return self.to_images(z.view(len(z), self.code_dim, *self.grid))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images -> images, through the latent."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Decode latents that are independent from place to place: for samples worth the name, train a prior.

        Raises:
            ZooError: the statistics of the latents are not fitted yet, or a condition is given.
        """
        self.check_condition(condition)
        return self.to_images(self.draw_maps(n, generator))

    def latents_to_fit(self, batch: Batch) -> Tensor:
        """Latents of a batch, for `density`."""
        raise NotImplementedError

    # -- training ------------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def charts(self) -> dict[str, list[str]]:
        """Loss, and the reconstruction error."""
        return {
            "loss": ["train/loss", "val/loss"],
            "reconstruction": ["train/reconstruction", "val/reconstruction"],
        }
