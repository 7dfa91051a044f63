"""Random views of an image for contrastive learning: strong changes that keep its meaning."""

import math
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Fraction
from zoo.core.spec import DataSpec
from zoo.nn.augmentations.gan import Augmentation, cut_out, recolor


@register("augmentation", "views")
class RandomViews(Augmentation):
    """Crop at random, resize, rotate, change colours, and cut out a square (Chen et al. 2020, arXiv:2002.05709).

    The shape of a crop is that of the image. A rotation fills the corners by reflection.

    Args:
        spec: what the data looks like.
        least_area: of a crop, as a share of the image; 1 does not crop.
        turn: largest rotation, degrees.
        flip: mirror half of the images; false for digits and letters, which change their meaning.
        color: change brightness, contrast, and of colour images saturation.
        cutout: side of a grey square, as a share of the size.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        least_area: Annotated[float, Interval(gt=0, le=1)] = 0.4,
        turn: Annotated[float, Interval(ge=0, le=180)] = 15.0,
        flip: bool = False,
        color: bool = True,
        cutout: Fraction = 0.0,
    ) -> None:
        super().__init__(spec)
        self.least_area, self.turn, self.flip, self.color, self.cutout = least_area, turn, flip, color, cutout

    def forward(self, x: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [-1, 1], each on its own."""
        x = random_crop(x, self.least_area, math.radians(self.turn), flip=self.flip)
        if self.color:
            x = recolor(x, torch.ones(len(x), device=x.device))
        return cut_out(x, self.cutout) if self.cutout else x


def random_crop(x: Tensor, least_area: float, turn: float = 0.0, *, flip: bool = False) -> Tensor:
    """Crop, rotate and perhaps mirror each image, and resize to its old size: (B, C, H, W).

    Without rotation, the crop lies inside the image.

    Args:
        x: images (B, C, H, W).
        least_area: shares of the area are uniform from here to 1.
        turn: largest rotation, radians.
        flip: mirror half of the images.
    """
    n, (height, width) = len(x), x.shape[2:]
    area, right, down, angle, side = torch.rand(5, n, device=x.device)
    scale = (least_area + (1 - least_area) * area).sqrt()
    angle = turn * (2 * angle - 1)
    cos, sin, ratio = angle.cos() * scale, angle.sin() * scale, height / width
    mirror = torch.where(side < 0.5, -1.0, 1.0) if flip else torch.ones_like(side)
    matrix = torch.stack(
        [
            torch.stack([cos * mirror, -sin * ratio, (2 * right - 1) * (1 - scale)], 1),
            torch.stack([sin * mirror / ratio, cos, (2 * down - 1) * (1 - scale)], 1),
        ],
        1,
    )  # (B, 2, 3)
    exact = torch.promote_types(x.dtype, torch.float32)
    grid = F.affine_grid(matrix.to(exact), list(x.shape), align_corners=False)
    return F.grid_sample(x.to(exact), grid, padding_mode="reflection", align_corners=False).to(x.dtype)
