"""Default networks: convolutional for images and the frames of videos, fully connected otherwise."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.nn.blocks.layers import Norm
from zoo.nn.networks.conv import ConvDecoder, ConvEncoder
from zoo.nn.networks.frames import FramesDecoder, FramesEncoder
from zoo.nn.networks.mlp import MLPDecoder, MLPEncoder


def uses_convolution(shape: Sequence[int], mlp_max_size: int) -> bool:
    """Whether a sample is an image with a side longer than `mlp_max_size` pixels."""
    return len(shape) == 3 and max(shape[1:]) > mlp_max_size


@register("encoder", "auto")
def auto_encoder(
    shape: Sequence[int],
    out_dim: int,
    *,
    width: PositiveInt | None = None,
    mlp_max_size: Count = 0,
    norm: Norm = "none",
    spectral_norm: bool = False,
) -> nn.Module:
    """Use `conv` for images, `frames` for videos, and `mlp` for others: vectors, and images up to `mlp_max_size`.

    Args:
        shape: shape of one sample.
        out_dim: number of features.
        width: base width; None is the network's default.
        mlp_max_size: longest side, in pixels, of images for the MLP.
        norm: normalisation of convolutional networks.
        spectral_norm: apply spectral normalisation to all weights.
    """
    size: dict[str, Any] = {} if width is None else {"width": width}
    if uses_convolution(shape, mlp_max_size):
        return ConvEncoder(shape, out_dim, norm=norm, spectral_norm=spectral_norm, **size)
    if len(shape) == 4:
        return FramesEncoder(shape, out_dim, norm=norm, spectral_norm=spectral_norm, **size)
    return MLPEncoder(shape, out_dim, spectral_norm=spectral_norm, **size)


@register("decoder", "auto")
def auto_decoder(
    in_dim: int,
    shape: Sequence[int],
    *,
    width: PositiveInt | None = None,
    mlp_max_size: Count = 0,
    norm: Norm = "none",
    spectral_norm: bool = False,
) -> nn.Module:
    """Use `conv` for images, `frames` for videos, and `mlp` for others: vectors, and images up to `mlp_max_size`.

    Args:
        shape: shape of one sample.
        in_dim: size of the input vector.
        width: base width; None is the network's default.
        mlp_max_size: longest side, in pixels, of images for the MLP.
        norm: normalisation of convolutional networks.
        spectral_norm: apply spectral normalisation to all weights.
    """
    size: dict[str, Any] = {} if width is None else {"width": width}
    if uses_convolution(shape, mlp_max_size):
        return ConvDecoder(in_dim, shape, norm=norm, spectral_norm=spectral_norm, **size)
    if len(shape) == 4:
        return FramesDecoder(in_dim, shape, norm=norm, spectral_norm=spectral_norm, **size)
    return MLPDecoder(in_dim, shape, spectral_norm=spectral_norm, **size)
