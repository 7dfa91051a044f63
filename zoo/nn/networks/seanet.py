"""Convolutional autoencoders of waveforms."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Audio

MOST = 8  # largest factor of `width`


class Unit(nn.Module):
    """x + a dilated convolution and a pointwise one, (B, D, T)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        inner = max(width // 2, 1)
        self.layers = nn.Sequential(
            nn.ELU(),
            nn.Conv1d(width, inner, 3, padding=dilation, dilation=dilation),
            nn.ELU(),
            nn.Conv1d(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) -> (B, D, T)."""
        return x + self.layers(x)


@register("spatial_autoencoder", "seanet")
class SEANet(nn.Module):
    """Waveforms (B, C, N) -> vectors (B, n_latent, T), and vectors (B, n_code, T) -> waveforms (B, n_out, N).

    Residual units of dilated convolutions, and convolutions that shorten by a stride, as in SoundStream (Zeghidour et
    al. 2021, arXiv:2107.03312, section III.A). T is N divided by the product of the strides, rounded up: silence is
    added at the end, and removed after decoding. The convolutions are not causal.

    Args:
        shape: (C, N).
        n_latent: numbers in a vector that the encoder returns.
        n_code: numbers in a vector that the decoder takes.
        n_out: channels that the decoder returns.
        strides: of each level.
        width: channels at full rate; doubled with each level, at most eightfold.
        dilations: of the residual units of each level.

    Raises:
        ZooError: not the shape of a sound.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Audio,)

    def __init__(
        self,
        shape: Sequence[int],
        n_latent: int,
        n_code: int,
        n_out: int,
        *,
        strides: Annotated[tuple[int, ...], Ge(1)] = (4, 4, 4),
        width: PositiveInt = 16,
        dilations: Annotated[tuple[int, ...], Ge(1)] = (1, 3),
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            size = "x".join(map(str, shape))
            raise ZooError(f"network=seanet: needs sounds (C, N), but a sample here is {size}. Choose resnet instead.")
        channels, self.samples = shape
        self.stride = math.prod(strides)
        self.grid = (-(-self.samples // self.stride),)
        widths = [width * min(2**level, MOST) for level in range(len(strides) + 1)]

        def units(size: int) -> list[nn.Module]:
            return [Unit(size, dilation) for dilation in dilations]

        down: list[nn.Module] = []
        for (n, m), s in zip(pairwise(widths), strides, strict=True):
            down += [*units(n), nn.ELU(), nn.Conv1d(n, m, 2 * s + s % 2, s, padding=(s + 1) // 2)]
        up: list[nn.Module] = []
        for (n, m), s in zip(pairwise(widths[::-1]), strides[::-1], strict=True):
            up += [nn.ELU(), nn.ConvTranspose1d(n, m, 2 * s + s % 2, s, padding=(s + 1) // 2), *units(m)]
        top = widths[-1]
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, width, 7, padding=3), *down, nn.ELU(), nn.Conv1d(top, n_latent, 3, padding=1)
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv1d(n_code, top, 7, padding=3), *up, nn.ELU(), nn.Conv1d(width, n_out, 7, padding=3)
        )  # fmt: skip

    @property
    def last_layer(self) -> Tensor:
        """Weights of the decoder's last layer."""
        weight: Tensor = self.decoder[-1].weight  # type: ignore[assignment]
        return weight

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, N) -> (B, n_latent, T)."""
        return self.encoder(F.pad(x, (0, self.grid[0] * self.stride - self.samples)))

    def decode(self, z: Tensor) -> Tensor:
        """(B, n_code, T) -> (B, n_out, N)."""
        found: Tensor = self.decoder(z)[..., : self.samples]
        return found
