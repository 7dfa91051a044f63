"""The default denoising network."""

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Interval
from torch import nn

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.nn.networks.denoiser_mlp import MLPDenoiser
from zoo.nn.networks.space_time_unet import SpaceTimeUNet
from zoo.nn.networks.unet import UNet


@register("denoiser", "auto")
def auto_denoiser(
    shape: Sequence[int],
    n_out: int,
    n_classes: int,
    n_levels: int = 1,
    context_width: int = 0,
    *,
    width: PositiveInt | None = None,
    dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
) -> nn.Module:
    """Use `unet` for images, `space_time_unet` for videos and `mlp` for vectors.

    Args:
        shape: of one sample.
        n_out: outputs per value.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; 2 for flow maps.
        context_width: of a text's features; 0 ignores texts.
        width: base width; None is the network's default.
        dropout: inside the blocks.
    """
    network: Any = {3: UNet, 4: SpaceTimeUNet}.get(len(shape), MLPDenoiser)
    return network(
        shape, n_out, n_classes, n_levels, context_width, dropout=dropout, **({} if width is None else {"width": width})
    )
