"""KL autoencoder: continuous latents that keep height and width, for diffusion in latent space."""

from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Component, NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoencoder.spatial import SpatialAutoencoderModel
from zoo.nn.distributions.latents import ChannelRange
from zoo.nn.distributions.likelihoods import at_least_float32, soft_clamp
from zoo.nn.distributions.normal import kl_to_standard, log_normal
from zoo.nn.networks.components import SpatialAutoencoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

LOG_STD_BOUND = 6.0  # |log std| of the posterior


@register("model", "kl_autoencoder")
class KLAutoencoder(SpatialAutoencoderModel):
    """Variational autoencoder whose latents are small images, with a small weight of the KL.

    `loss` is -log p(x | z) plus the weighted KL of N(mean, std^2) from N(0, I), in nats per image. As a first stage, it
    gives the means: an image whose channels have mean 1/2 and equal deviations over the training data. A prior on them
    is another training: `python train.py model=diffusion first_stage=RUN`.

    Args:
        spec: what the data looks like.
        channels: of the latent.
        kl_weight: of the KL; the loss is a bound on the likelihood for 1.
        likelihood: p(x | z), as in `vae`.
        network: encoder and decoder.
        optimizer: with its learning rate and schedule.
    """

    paper = "Rombach et al. 2022 (arXiv:2112.10752)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        channels: PositiveInt = 4,
        kl_weight: NonNegative = 1e-3,
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        network: SpatialAutoencoder = "resnet",
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        self.build_networks(2 * channels, channels)
        self.density = ChannelRange(channels)

    # -- the objective -------------------------------------------------------------------------------------------

    def mean_and_log_std(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of q(z | x), each (B, D, h, w)."""
        mean, raw = at_least_float32(self.network.encode(x)).chunk(2, dim=1)
        return mean, soft_clamp(raw, LOG_STD_BOUND)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`reconstruction` = -E log p(x | z), and `kl`; nats per image."""
        mean, log_std = self.mean_and_log_std(batch.x)
        z = mean + log_std.exp() * torch.randn_like(mean)
        reconstruction = -self.observation_log_prob(batch.x, z).mean()
        kl = kl_to_standard(mean, log_std).flatten(1).sum(1).mean()
        return {"loss": reconstruction + self.hparams["kl_weight"] * kl, "reconstruction": reconstruction, "kl": kl}

    # -- a first stage -------------------------------------------------------------------------------------------

    def latent_space(self) -> Image:
        """Small images with as many channels as the latent, of continuous values."""
        height, width = self.grid
        return Image(self.code_dim, height, width, levels=0)

    @torch.no_grad()
    def to_latent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) -> latents, (B, D, h, w); those of training data are in [0, 1]."""
        return self.density.to_unit(self.maps(x))  # not `fitted_density`: that check reads a number from the device

    @torch.no_grad()
    def from_latent(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents -> images."""
        return self.to_images(self.density.from_unit(z))

    @torch.no_grad()
    def draw_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `SupportsLatentDraws`: z ~ q(z | x), of density q(z | x) / |det du/dz| at the latents u of the space."""
        mean, log_std = self.mean_and_log_std(x)
        z = mean + log_std.exp() * torch.randn_like(mean)
        log_q = log_normal(z.flatten(1), mean.flatten(1), log_std.flatten(1)) - self.density.log_abs_det(z)
        return self.density.to_unit(z), self.observation_log_prob(x, z) - log_q

    # -- abilities -----------------------------------------------------------------------------------------------

    def maps(self, x: Tensor) -> Tensor:
        """Images -> means of q(z | x), (B, D, h, w)."""
        return self.mean_and_log_std(x)[0]

    @torch.no_grad()
    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), each (B, D h w)."""
        mean, log_std = self.mean_and_log_std(x)
        return mean.flatten(1), log_std.flatten(1)

    def draw_maps(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Independent normal numbers with the mean and deviation of each channel."""
        return self.fitted_density().draw(n, self.grid, generator)

    def latents_to_fit(self, batch: Batch) -> Tensor:
        """Means of q(z | x), (B, D, h, w)."""
        return self.maps(batch.x)

    def export_module(self) -> ExportableSampler:
        """Noise, with the statistics of the latents -> images.

        Raises:
            ZooError: the statistics of the latents are not fitted yet.
        """
        density = self.fitted_density()
        return ExportableSampler(
            lambda noise: self.to_images(density.transform(noise)),
            [InputSpec("noise", "normal", (self.code_dim, *self.grid))],
            density,
            self.network,
            self.likelihood,
        )

    def charts(self) -> dict[str, list[str]]:
        """Loss and its two terms."""
        return super().charts() | {"KL divergence": ["train/kl", "val/kl"]}
