"""Convolutional autoencoders whose latents keep height and width."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, image_shape, norm2d, resolutions
from zoo.nn.networks.conv import channels_at
from zoo.nn.networks.resnet import Block


@register("spatial_autoencoder", "resnet")
class SpatialResNet(nn.Module):
    """Images (B, C, H, W) -> maps (B, n_latent, h, w), and maps (B, n_code, h, w) -> maps (B, n_out, H, W).

    Residual blocks, and a halving at each resolution, as in van den Oord et al. 2017 (arXiv:1711.00937).

    Args:
        shape: (C, H, W).
        n_latent: maps that the encoder returns.
        n_code: maps that the decoder takes.
        n_out: maps that the decoder returns.
        latent_side: the image is halved until its shorter side is at most this long; `grid` is then (h, w).
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        n_blocks: residual blocks at each resolution, on both sides.
        activation: activation function.
        norm: normalisation of feature maps.

    Raises:
        ZooError: not the shape of an image.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        n_latent: int,
        n_code: int,
        n_out: int,
        *,
        latent_side: PositiveInt = 4,
        width: PositiveInt = 32,
        n_blocks: PositiveInt = 1,
        activation: Activation = "silu",
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        if len(shape) == 2:
            raise ZooError(
                f"network=resnet: needs images (C, H, W), but a sample here is a sound of {shape[1]} samples. "
                "Choose seanet instead, as model=audio_codec does."
            )
        channels, height, width_px = image_shape("resnet", shape)
        sizes = resolutions(height, width_px, latent_side)
        self.grid = sizes[-1]
        widths = [channels_at(level, width) for level in range(len(sizes))]
        top = widths[-1]

        def stack(n_in: int, n_out: int, size: tuple[int, int]) -> list[nn.Module]:
            """Blocks at one resolution, the first of which changes the resolution."""
            first = Block(n_in, n_out, activation, norm, False, size)
            return [first, *(Block(n_out, n_out, activation, norm, False) for _ in range(n_blocks - 1))]

        down = [b for (i, o), size in zip(pairwise(widths), sizes[1:], strict=True) for b in stack(i, o, size)]
        up = [b for (i, o), size in zip(pairwise(widths[::-1]), sizes[-2::-1], strict=True) for b in stack(i, o, size)]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *down,
            *stack(top, top, sizes[-1]),
            norm2d(norm, top),
            ACTIVATIONS[activation](),
            nn.Conv2d(top, n_latent, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(n_code, top, 3, padding=1),
            *stack(top, top, sizes[-1]),
            *up,
            norm2d(norm, width),
            ACTIVATIONS[activation](),
            nn.Conv2d(width, n_out, 3, padding=1),
        )

    @property
    def last_layer(self) -> Tensor:
        """Weights of the decoder's last layer."""
        weight: Tensor = self.decoder[-1].weight  # type: ignore[assignment]
        return weight

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, n_latent, h, w)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """(B, n_code, h, w) -> (B, n_out, H, W)."""
        return self.decoder(z)
