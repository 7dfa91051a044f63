"""The default denoising network."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.nn.networks.denoiser_mlp import MLPDenoiser
from zoo.nn.networks.unet import UNet


@register("denoiser", "auto")
def auto_denoiser(shape: Sequence[int], n_out: int, n_classes: int, *, width: PositiveInt | None = None) -> nn.Module:
    """Use `unet` for images and `mlp` for vectors.

    Args:
        shape: of one sample.
        n_out: outputs per value.
        n_classes: 0 ignores labels.
        width: base width; None is the network's default.
    """
    network: Any = UNet if len(shape) == 3 else MLPDenoiser
    return network(shape, n_out, n_classes, **({} if width is None else {"width": width}))
