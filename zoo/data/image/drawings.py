"""Drawings of the shapes of `zoo.data.image.shapes` in several styles, pixel by pixel of the same shape."""

import torch
from torch import Tensor
from torch.nn import functional as F

INKS = ((0.85, 0.2, 0.2), (0.2, 0.65, 0.3), (0.25, 0.4, 0.9))  # of the three shapes: red, green, blue
WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
ORANGE, NIGHT = (1.0, 0.6, 0.1), (0.1, 0.1, 0.3)


def outlines(x: Tensor) -> Tensor:
    """White shapes on black (B, 1, H, W) in [0, 1] -> their outlines, one pixel wide.

    An outline is the shape minus its erosion by a 3x3 square.
    """
    return x + F.max_pool2d(-x, 3, 1, 1)


def painted(x: Tensor, ink: Tensor, paper: tuple[float, float, float]) -> Tensor:
    """White shapes on black (B, 1, H, W) in [0, 1] -> shapes in inks (B or 1, 3) on paper, (B, 3, H, W)."""
    ground = torch.tensor(paper, device=x.device).view(1, 3, 1, 1)
    colours = torch.lerp(ground, ink.to(x.device)[:, :, None, None], x)
    return colours.mul(255).round().div(255)  # the levels of a picture file
