"""The default network: whichever fits the data."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.nn.blocks.layers import Norm
from zoo.nn.networks.conv import ConvDecoder, ConvEncoder
from zoo.nn.networks.mlp import MLPDecoder, MLPEncoder


def convolves(shape: Sequence[int], flat_up_to: int) -> bool:
    """Is a sample an image that is larger than `flat_up_to` pixels on one side at least?"""
    return len(shape) == 3 and max(shape[1:]) > flat_up_to


@register("encoder", "auto")
def auto_encoder(
    shape: Sequence[int],
    out_dim: int,
    *,
    width: PositiveInt | None = None,
    flat_up_to: Count = 0,
    norm: Norm = "none",
    spectral_norm: bool = False,
) -> nn.Module:
    """`conv` for images, `mlp` for vectors and for images of at most `flat_up_to` pixels a side.

    `width` None leaves each at its own; `norm` is for convolutions.
    """
    size: dict[str, Any] = {} if width is None else {"width": width}
    if convolves(shape, flat_up_to):
        return ConvEncoder(shape, out_dim, norm=norm, spectral_norm=spectral_norm, **size)
    return MLPEncoder(shape, out_dim, spectral_norm=spectral_norm, **size)


@register("decoder", "auto")
def auto_decoder(
    in_dim: int,
    shape: Sequence[int],
    *,
    width: PositiveInt | None = None,
    flat_up_to: Count = 0,
    norm: Norm = "none",
    spectral_norm: bool = False,
) -> nn.Module:
    """`conv` for images, `mlp` for vectors and for images of at most `flat_up_to` pixels a side.

    `width` None leaves each at its own; `norm` is for convolutions.
    """
    size: dict[str, Any] = {} if width is None else {"width": width}
    if convolves(shape, flat_up_to):
        return ConvDecoder(in_dim, shape, norm=norm, spectral_norm=spectral_norm, **size)
    return MLPDecoder(in_dim, shape, spectral_norm=spectral_norm, **size)
