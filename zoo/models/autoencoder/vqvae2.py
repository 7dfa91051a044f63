"""VQ-VAE-2: an autoencoder of images with codes on two grids, for the whole and for details."""

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Component, PositiveInt
from zoo.core.spaces import Codes, Image
from zoo.core.spec import DataSpec
from zoo.models.autoencoder.vqvae import VQVAE, counts_of
from zoo.nn.networks.components import SpatialAutoencoder
from zoo.nn.networks.spatial import SpatialResNet
from zoo.nn.optim.components import Optimizer
from zoo.nn.quantizers.base import Quantized, QuantizerChoice
from zoo.nn.samplers.exportable import ExportableSampler


@register("model", "vqvae2")
class VQVAE2(VQVAE):
    """VQ-VAE with two levels of codes: a top grid of half the sides, and a bottom grid given the top one.

    The bottom codes quantise what the decoded top codes leave open; the decoder reads both (Razavi et al. 2019, section
    3.1). The latents of an image are one row: all top codes, then all bottom codes, each in raster order. So a prior
    that goes from left to right learns p(top) p(bottom | top). Each level has its own codebook of the same size. `loss`
    is as in `vqvae`, with the losses of both quantisers.

    Args:
        spec: what the data looks like.
        quantizer: of each level; see `vqvae`.
        likelihood: p(x | codes), as in `vae`.
        network: encoder to the bottom grid, and decoder from both levels.
        top_width: feature maps of the network between the two grids.
        optimizer: with its learning rate and schedule.
    """

    accepts = (Image,)
    paper = "Razavi et al. 2019 (arXiv:1906.00446)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        quantizer: QuantizerChoice = "vq",
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        network: SpatialAutoencoder = "resnet",
        top_width: PositiveInt = 64,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec, quantizer=quantizer, likelihood=likelihood, network=network, optimizer=optimizer)

    def build_networks(self, n_latent: int, n_code: int) -> None:
        """See `SpatialAutoencoderModel`; the encoder returns features, and the decoder takes both levels."""
        width = self.hparams["top_width"]
        super().build_networks(width, 2 * n_code)
        side = math.ceil(min(self.grid) / 2)
        self.top: Any = SpatialResNet((width, *self.grid), n_code, n_code, n_code, latent_side=side, width=width)
        self.top_quantizer: Any = self.build_component("quantizer", "quantizer", method="lookup")
        self.top_quantizer.set_grid(self.top.grid)
        self.join = nn.Conv2d(width + n_code, n_latent, 1)  # features, and the decoded top codes

    # -- two levels ----------------------------------------------------------------------------------------------

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the top and of the bottom codes of one image."""
        top: tuple[int, ...] = tuple(self.top.grid)
        return self.quantizer.index_shape(top), self.quantizer.index_shape(self.grid)

    def quantize(self, x: Tensor) -> Quantized:
        """Images (B, C, H, W) -> maps for the decoder (B, 2 D, h, w), codes (B, T), and the loss of both levels."""
        features = self.network.encode(x)
        top = self.top_quantizer(self.top.encode(features))
        decoded = self.top.decode(top.z)
        bottom = self.quantizer(self.join(torch.cat([features, decoded], 1)))
        maps = torch.cat([bottom.z, decoded], 1)
        codes = torch.cat([top.codes.flatten(1), bottom.codes.flatten(1)], 1)
        return Quantized(maps, codes, top.loss + bottom.loss)

    def levels(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of codes (B, T) -> top codes (B, *grid) and bottom codes (B, *grid)."""
        top, bottom = codes.split([math.prod(shape) for shape in self.shapes], 1)
        return top.unflatten(1, self.shapes[0]), bottom.unflatten(1, self.shapes[1])

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (B, T) -> maps for the decoder (B, 2 D, h, w)."""
        top, bottom = self.levels(codes)
        dtype = self.network.last_layer.dtype
        decoded = self.top.decode(self.top_quantizer.lookup(top).to(dtype))
        return torch.cat([self.quantizer.lookup(bottom).to(dtype), decoded], 1)

    def latent_space(self) -> Codes:
        """One row: the top codes, then the bottom codes."""
        return Codes((sum(math.prod(shape) for shape in self.shapes),), self.quantizer.n_codes)

    @torch.no_grad()
    def code_counts(self, x: Tensor) -> Tensor:
        """Counts of each code over images (B, C, H, W): the codebooks of the top, then of the bottom, (2 depth, K)."""
        top, bottom = self.levels(self.quantize(x).codes)
        return torch.cat([counts_of(self.top_quantizer, top), counts_of(self.quantizer, bottom)])

    # -- abilities -----------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """The networks of both levels."""
        return [self.network, self.top]

    def export_module(self) -> ExportableSampler:
        """See `VQVAE`."""
        density = self.fitted_density()
        inputs = super().export_module().inputs
        parts = density, self.quantizer, self.top_quantizer, self.network, self.top, self.likelihood
        return ExportableSampler(lambda choice: self.from_latent(density.transform(choice)), inputs, *parts)
