"""The networks of PyTorch-GAN's `dcgan.py`, to reproduce its figures: see `peer_pytorchgan_dcgan`.

Unlike `zoo.nn.networks.conv` the decoder starts at a quarter of the image size, and dropout removes whole channels.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.layers import image_shape

SLOPE = 0.2  # negative slope of leaky ReLU


@register("encoder", "strided")
class StridedEncoder(nn.Module):
    """Images (B, C, H, W) -> features (B, out_dim): strided convolutions, with twice as many channels after each.

    Batch normalisation follows all but the first and the last. A linear layer is added unless the result has `out_dim`
    numbers.

    Args:
        shape: (C, H, W).
        out_dim: number of features.
        width: channels of the first convolution.
        levels: number of convolutions.
        dropout: probability of dropping a channel.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        out_dim: int,
        *,
        width: PositiveInt = 16,
        levels: PositiveInt = 4,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.25,
    ) -> None:
        super().__init__()
        n_in, height, columns = image_shape("strided", shape)
        layers: list[nn.Module] = []
        for level in range(levels):
            n_out = width * 2**level
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1), nn.LeakyReLU(SLOPE, inplace=True), nn.Dropout2d(dropout)]
            if 0 < level < levels - 1:
                layers.append(nn.BatchNorm2d(n_out))
            n_in, height, columns = n_out, math.ceil(height / 2), math.ceil(columns / 2)
        self.body = nn.Sequential(*layers, nn.Flatten())
        left = n_in * height * columns
        self.head = nn.Identity() if left == out_dim else nn.Linear(left, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.head(self.body(x))


@register("decoder", "upsampling")
class UpsamplingDecoder(nn.Module):
    """Vectors (B, in_dim) -> images (B, C, H, W): a linear layer, then upsampling by 2 with a convolution each.

    Args:
        in_dim: size of the input vector.
        shape: (C, H, W).
        width: channels of the last convolution.
        num_upsamples: number of doublings of the size.

    Raises:
        ZooError: the sides of the image are not multiples of 2^num_upsamples.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self, in_dim: int, shape: Sequence[int], *, width: PositiveInt = 64, num_upsamples: PositiveInt = 2
    ) -> None:
        super().__init__()
        channels, height, columns = image_shape("upsampling", shape)
        scale = 2**num_upsamples
        if height % scale or columns % scale:
            raise ZooError(
                f"network=upsampling: needs image sides that are multiples of {scale}, not {height}x{columns}. Choose "
                f"data.size={math.ceil(height / scale) * scale}, or fewer num_upsamples."
            )
        n_in = width * 2 ** (num_upsamples - 1)
        self.start = (n_in, height // scale, columns // scale)
        self.first = nn.Linear(in_dim, math.prod(self.start))
        layers: list[nn.Module] = [nn.BatchNorm2d(n_in)]
        for level in range(num_upsamples):
            n_out = width * 2 ** max(num_upsamples - 1 - level, 0)
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(n_in, n_out, 3, padding=1),
                nn.BatchNorm2d(n_out),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            n_in = n_out
        self.body = nn.Sequential(*layers, nn.Conv2d(n_in, channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_dim) -> (B, C, H, W)."""
        return self.body(self.first(z).unflatten(1, self.start))
