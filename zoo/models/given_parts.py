"""Data of which a part is given, and a model draws the rest."""

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spec import DataSpec


def extended(x: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """First frames (B, K, C, H, W) -> whole videos (B, F, C, H, W), black after them, and a mask of the new frames.

    The mask (1, F, 1, 1, 1) is True for frames to draw.

    Raises:
        DataError: frames that are not the first of such videos.
    """
    frames, *rest = spec.shape
    if x.ndim != 5 or not 0 < x.shape[1] < frames or list(x.shape[2:]) != rest:
        raise DataError(
            f"x={tuple(x.shape)}: not the first frames of videos {frames}x{'x'.join(map(str, rest))}. Give "
            f"(B, K, {', '.join(map(str, rest))}) with K from 1 to {frames - 1}."
        )
    new = torch.arange(frames, device=x.device).view(1, -1, 1, 1, 1) >= x.shape[1]
    return torch.cat([x, x.new_zeros(x.shape[0], frames - x.shape[1], *rest)], 1), new


def expanded_mask(mask: Tensor, x: Tensor) -> Tensor:
    """A mask (B or 1, *shape), or one channel of it, as bool (B, *shape) on the device of data x (B, *shape).

    Raises:
        DataError: another shape.
    """
    try:
        return mask.to(x.device).bool().expand_as(x)
    except RuntimeError:
        raise DataError(f"mask={tuple(mask.shape)}: not for x {tuple(x.shape)}. Give one of equal size.") from None
