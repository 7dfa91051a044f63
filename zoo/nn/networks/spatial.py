"""Convolutional autoencoders whose latents keep height and width."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image, Video
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, image_shape, norm2d, resolutions
from zoo.nn.networks.conv import channels_at
from zoo.nn.networks.resnet import Block


@register("spatial_autoencoder", "resnet")
class SpatialResNet(nn.Module):
    """Images (B, C, H, W) -> maps (B, n_latent, h, w), and maps (B, n_code, h, w) -> maps (B, n_out, H, W).

    Residual blocks, and a halving at each resolution, as in van den Oord et al. 2017 (arXiv:1711.00937). Of videos
    (B, F, C, H, W), each frame is encoded and decoded alone, with maps (B, n_latent, F, h, w).

    Args:
        shape: (C, H, W), or (F, C, H, W).
        n_latent: maps that the encoder returns.
        n_code: maps that the decoder takes.
        n_out: maps that the decoder returns; of videos (B, n_out, C, H, W), a multiple of F.
        latent_side: the image is halved until its shorter side is at most this long; `grid` is then (h, w) or
            (F, h, w).
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        n_blocks: residual blocks at each resolution, on both sides.
        activation: activation function.
        norm: normalisation of feature maps.

    Raises:
        ZooError: not the shape of an image or a video.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image, Video)

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
        self.frames = shape[0] if len(shape) == 4 else 0
        channels, height, width_px = image_shape("resnet", shape[-3:] if self.frames else shape)
        if self.frames:
            n_out = n_out // self.frames * channels  # of a frame
        self.channels = channels
        sizes = resolutions(height, width_px, latent_side)
        self.grid = (self.frames, *sizes[-1]) if self.frames else sizes[-1]
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
        """(B, C, H, W) -> (B, n_latent, h, w), or (B, F, C, H, W) -> (B, n_latent, F, h, w)."""
        if not self.frames:
            return self.encoder(x)
        return self.encoder(x.flatten(0, 1)).unflatten(0, (-1, self.frames)).transpose(1, 2)

    def decode(self, z: Tensor) -> Tensor:
        """(B, n_code, h, w) -> (B, n_out, H, W), or (B, n_code, F, h, w) -> (B, n_out, C, H, W)."""
        if not self.frames:
            return self.decoder(z)
        x = self.decoder(z.transpose(1, 2).flatten(0, 1))  # (B F, k C, H, W), with k F = n_out
        x = x.unflatten(1, (-1, self.channels)).unflatten(0, (-1, self.frames))  # (B, F, k, C, H, W)
        return x.transpose(1, 2).flatten(1, 2)
