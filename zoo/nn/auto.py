"""The default network: whichever fits the data."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zoo.nn.conv import ConvDecoder, ConvEncoder
from zoo.nn.layers import Norm
from zoo.nn.mlp import MLPDecoder, MLPEncoder
from zoo.registry import register
from zoo.spec import PositiveInt


@register("encoder", "auto")
def auto_encoder(
    shape: Sequence[int],
    out_dim: int,
    *,
    width: PositiveInt | None = None,
    norm: Norm = "none",
    spectral_norm: bool = False,
) -> nn.Module:
    """`conv` for images, `mlp` for vectors; `width` None leaves each at its own."""
    network = ConvEncoder if len(shape) == 3 else MLPEncoder
    size: dict[str, Any] = {} if width is None else {"width": width}
    return network(shape, out_dim, norm=norm, spectral_norm=spectral_norm, **size)


@register("decoder", "auto")
def auto_decoder(
    in_dim: int,
    shape: Sequence[int],
    *,
    width: PositiveInt | None = None,
    norm: Norm = "none",
    spectral_norm: bool = False,
) -> nn.Module:
    """`conv` for images, `mlp` for vectors; `width` None leaves each at its own."""
    network = ConvDecoder if len(shape) == 3 else MLPDecoder
    size: dict[str, Any] = {} if width is None else {"width": width}
    return network(in_dim, shape, norm=norm, spectral_norm=spectral_norm, **size)
