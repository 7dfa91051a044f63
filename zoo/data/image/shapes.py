"""Drawn shapes with known factors of variation, to measure how well single latents follow single factors."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.loader import make_generator

SIDE = 32  # pixels
OVERSAMPLING = 4  # points per pixel and side, for smooth edges
RADII = (5.0, 6.0, 7.0, 8.0)  # pixels
STEP = 2  # pixels between positions


@register("data", "shapes")
class Shapes(DataModule):
    """Grey 32x32 images of one shape: all 6,144 combinations of five independent factors, as in dSprites.

    Shape (kite, letter L, half disc), scale (4), rotation (8, of a full turn), and position in x and in y (8 each). No
    shape looks the same after a part of a turn. 4,916 images are for training, 614 for validation and 614 for testing;
    the split is one fixed permutation. The label is the shape.

    Args:
        batch_size: samples per batch.
        seed: seed of the training order.
    """

    factor_names: ClassVar[tuple[str, ...]] = ("shape", "scale", "rotation", "x", "y")
    factor_sizes: ClassVar[tuple[int, ...]] = (3, len(RADII), 8, 8, 8)
    images: Tensor  # uint8 (6144, 1, 32, 32)

    def __init__(self, *, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed)

    @property
    def spec(self) -> DataSpec:
        """Images (1, 32, 32) of three classes."""
        return DataSpec(Image(1, SIDE, SIDE), Label(self.factor_sizes[0]), name=self.registered_name)

    def load(self) -> None:
        """Draw all images, and split them."""
        self.images = draw_all(self.factor_sizes)
        order = torch.randperm(len(self.images), generator=make_generator(0))
        held = len(order) // 10
        parts: list[Split] = [
            (rows, self.factors(rows)[:, 0]) for rows in order.split([len(order) - 2 * held, held, held])
        ]
        self.train, self.val, self.test = parts  # x: numbers of images (N,)

    def factors(self, rows: Tensor) -> Tensor:
        """Values of the factors of stored samples (N,): int64 (N, 5), each from 0."""
        return torch.stack(torch.unravel_index(rows, self.factor_sizes), 1)

    def resident_tensors(self) -> list[Tensor]:
        """Numbers of the images, and all images."""
        return [*super().resident_tensors(), self.images]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, 1, 32, 32)."""
        rows, y = DataModule.fetch(self, split, indices, generator, train=train)
        return as_float(self.on_device(rows, self.images)[rows]), y


def inside(u: Tensor, v: Tensor) -> Tensor:
    """Whether points of the unit disc, v upwards, lie in each shape: bool (3, ...)."""
    kite = u.abs() <= 0.6 * torch.where(v > 0.4, (1 - v) / 0.6, (1 + v) / 1.4)
    letter = ((u < -0.1) & (u > -0.6) & (v.abs() < 0.75)) | ((u.abs() < 0.6) & (v < -0.25) & (v > -0.75))
    half = (u.square() + (v - 0.3).square() < 0.9) & (v < 0.3)
    return torch.stack([kite, letter, half])


def draw_all(sizes: tuple[int, ...]) -> Tensor:
    """Images of all combinations, the last factor fastest: uint8 (N, 1, 32, 32)."""
    _, scales, turns, columns, rows = sizes
    points = (torch.arange(SIDE * OVERSAMPLING, dtype=torch.float64) + 0.5) / OVERSAMPLING - SIDE / 2
    down, right = torch.meshgrid(points, points, indexing="ij")  # pixels from the centre
    radius = torch.tensor(RADII[:scales], dtype=torch.float64).view(-1, 1, 1, 1)
    angle = (2 * math.pi / turns * torch.arange(turns, dtype=torch.float64)).view(1, -1, 1, 1)
    u = (angle.cos() * right - angle.sin() * down) / radius
    v = -(angle.sin() * right + angle.cos() * down) / radius
    fine = inside(u, v).float().flatten(0, 2)[:, None]  # (shape x scale x rotation, 1, ...)
    centred = torch.nn.functional.avg_pool2d(fine, OVERSAMPLING).mul(255).round().to(torch.uint8)
    offset = STEP * torch.arange(columns) - STEP * (columns - 1) // 2
    moved = [centred.roll((int(y), int(x)), (2, 3)) for x in offset for y in offset[:rows]]
    return torch.stack(moved, 1).flatten(0, 1)
