"""VQ-VAE: an autoencoder of images, videos or sounds, whose latents are codes on a grid."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Component
from zoo.core.space import Space
from zoo.core.spaces import Audio, Codes, Image, Video
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.metrics.codebook import code_perplexity, dead_codes, share_used
from zoo.models.autoencoder.spatial import SpatialAutoencoderModel
from zoo.nn.distributions.latents import IndependentCodes
from zoo.nn.networks.components import SpatialAutoencoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.quantizers.base import Quantized, Quantizer, QuantizerChoice
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

MAX_COUNTED = 2**20  # codes of a codebook whose use is measured


@register("model", "vqvae")
class VQVAE(SpatialAutoencoderModel):
    """Autoencoder with a discrete latent: every vector on a grid is replaced by an entry of a codebook.

    `loss` is -log p(x | codes) in nats, summed over pixels, plus the loss of the quantiser. The gradient passes the
    quantiser unchanged. A prior over the codes is another training: `python train.py model=gpt first_stage=RUN`.
    Samples of this model alone have codes that are independent from place to place.

    Sounds (B, C, N) have a grid of one dimension. With `network=seanet`, `likelihood=spectral` and `quantizer=rvq` this
    is an audio codec. Videos (B, F, C, H, W) have codes for each frame, which do not depend on the others.

    Args:
        spec: what the data looks like.
        quantizer: vq, fsq, lfq, rvq, multi_scale, or a registered one.
        likelihood: p(x | codes), as in `vae`.
        network: encoder and decoder.
        optimizer: with its learning rate and schedule.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image, Audio, Video)
    paper = "van den Oord et al. 2017 (arXiv:1711.00937); Zeghidour et al. 2021 (SoundStream, arXiv:2107.03312)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        quantizer: QuantizerChoice = "vq",
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        network: SpatialAutoencoder = "resnet",
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        self.quantizer: Any = self.build_component("quantizer", "quantizer", method="lookup")
        self.build_networks(self.quantizer.dim, self.quantizer.dim)
        self.quantizer.set_grid(self.grid)
        self.density = IndependentCodes(self.latent_space().size)
        self.val_counts: Tensor | None = None  # of codes in a validation, (depth, K)

    # -- the objective -------------------------------------------------------------------------------------------

    def quantize(self, x: Tensor) -> Quantized:
        """Images (B, C, H, W) -> codes, with gradients."""
        quantized: Quantized = self.quantizer(self.network.encode(x))
        return quantized

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`reconstruction` = -log p(x | codes), and `quantization`, the loss of the quantiser; nats per image."""
        z, _, loss = self.quantize(batch.x)
        reconstruction = -self.observation_log_prob(batch.x, z).mean()
        return {"loss": reconstruction + loss, "reconstruction": reconstruction, "quantization": loss}

    # -- use of the codebook -------------------------------------------------------------------------------------

    @torch.no_grad()
    def code_counts(self, x: Tensor) -> Tensor:
        """Counts of each code over images (B, C, H, W), for each of the codebooks, (depth, K)."""
        return counts_of(self.quantizer, self.quantize(x).codes)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms of the loss, and count codes."""
        super().validation_step(batch, batch_idx)
        self.count_codes(batch.x)

    def count_codes(self, x: Tensor) -> None:
        """Count the codes of images of a validation."""
        if self.quantizer.n_codes <= MAX_COUNTED:
            counts = self.code_counts(x)
            self.val_counts = counts if self.val_counts is None else self.val_counts + counts

    def on_validation_epoch_end(self) -> None:
        """Log the use of the codebook by the whole split: a batch has too few codes for it."""
        if self.val_counts is not None:
            counts: Any = self.trainer.strategy.reduce(self.val_counts, reduce_op="sum")
            self.log("val/code_perplexity", code_perplexity(counts), sync_dist=True)
            self.log("val/codes_used", share_used(counts), sync_dist=True)
            self.log("val/dead_codes", dead_codes(counts), sync_dist=True)
            self.val_counts = None

    # -- a first stage -------------------------------------------------------------------------------------------

    def latent_space(self) -> Codes:
        """Codes on the grid; the codes of one place are neighbours."""
        space: Codes = self.quantizer.index_space(self.grid)
        return replace(space, frames=self.spec.x.frames) if isinstance(self.spec.x, Video) else space

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (B, *grid) -> their vectors (B, D, h, w)."""
        z: Tensor = self.quantizer.lookup(codes)
        return z.to(self.network.last_layer.dtype)

    @torch.no_grad()
    def to_latent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) -> codes int64 (B, *grid)."""
        return self.quantize(x).codes

    @torch.no_grad()
    def from_latent(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B, *grid) -> images."""
        return self.to_images(self.vectors(z))

    def latent_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | codes) in nats (B,)."""
        return self.observation_log_prob(x, self.vectors(z))

    @torch.no_grad()
    def draw_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `SupportsLatentDraws`: the codes of x have probability one."""
        z = self.to_latent(x)
        return z, self.latent_log_prob(x, z)

    # -- abilities -----------------------------------------------------------------------------------------------

    def maps(self, x: Tensor) -> Tensor:
        """Images -> the codes' vectors (B, D, h, w)."""
        return self.quantize(x).z

    def draw_maps(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Vectors of codes with the frequencies of the training data at each place."""
        codes = self.fitted_density().draw(n, generator)
        return self.vectors(codes.view(n, *self.latent_space().shape))

    def latents_to_fit(self, batch: Batch) -> Tensor:
        """Codes (B, T)."""
        return self.to_latent(batch.x).flatten(1)

    def export_module(self) -> ExportableSampler:
        """Uniform numbers, which choose independent codes -> images.

        Raises:
            ZooError: the frequencies of the codes are not fitted yet.
        """
        density, shape = self.fitted_density(), self.latent_space().shape
        return ExportableSampler(
            lambda choice: self.from_latent(density.transform(choice).view(-1, *shape)),
            [InputSpec("choice", "uniform", (self.latent_space().size,))],
            density,
            self.quantizer,
            self.network,
            self.likelihood,
        )

    def charts(self) -> dict[str, list[str]]:
        """Loss, reconstruction error, and use of the codebook."""
        return super().charts() | {
            "loss of the quantiser": ["train/quantization", "val/quantization"],
            "perplexity of the codes": ["val/code_perplexity"],
            "share of codes in use": ["val/codes_used"],
            "dead codes": ["val/dead_codes"],
        }


def counts_of(quantizer: Quantizer, codes: Tensor) -> Tensor:
    """Counts of each code among codes (B, *index_shape), for each of the codebooks, (depth, K)."""
    return torch.stack([torch.bincount(index, minlength=quantizer.n_codes) for index in quantizer.by_codebook(codes)])
