"""Augmentation of what a discriminator sees, real and generated, so that few images are not learned by heart.

    augmentation = Adaptive(spec)
    logits = discriminator(augmentation(x))     # of real and of generated images
    augmentation.observe(logits_of_real)        # after each discriminator step

The generator learns through the change, so it must be differentiable. Its law must be invertible, or the generator
learns to make changed images: no change ever has to be certain (Karras et al. 2020, section 2.2).
"""

import math
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Fraction, Positive
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec

BRIGHTNESS, SATURATION, CONTRAST = 0.5, 1.0, 0.5  # largest changes, of images in [0, 1]
SHIFT, TURN, ZOOM = 0.125, math.pi / 12, 0.2  # of the size; radians; logarithm to base 2
SAFE = 0.8  # above it, changes are learned from (Karras et al. 2020, figure 4)


class Augmentation(nn.Module):
    """Base class: no change.

    Args:
        spec: what the data looks like.

    Raises:
        ConfigError: data that are not images.
    """

    needs_logits = False  # whether `observe` reads the sign of logits
    registered_name: str

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not isinstance(spec.x, Image) and type(self).forward is not Augmentation.forward:
            raise ConfigError(
                f"model.augmentation={self.registered_name}: changes images, and these are {spec.x}. "
                "Choose model/augmentation=none."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [-1, 1], each on its own."""
        return x

    def observe(self, logits: Tensor) -> None:
        """Adapt to logits of real images (n,), positive where they are taken for real. Default: no-op."""

    def state_terms(self) -> dict[str, Tensor]:
        """Numbers to log. Default: none."""
        return {}


@register("augmentation", "none")
class NoAugmentation(Augmentation):
    """No change."""


@register("augmentation", "diffaug")
class DiffAugment(Augmentation):
    """Colour, translation and cutout of every image (Zhao et al. 2020, arXiv:2006.10738).

    In the published program brightness changes half as much, and grey comes in at the border, not black.

    Args:
        spec: what the data looks like.
        color: change brightness, contrast, and of colour images saturation.
        translation: largest shift, as a share of the size; the border that enters is black.
        cutout: side of a grey square, as a share of the size.
    """

    def __init__(
        self, spec: DataSpec, *, color: bool = True, translation: Fraction = SHIFT, cutout: Fraction = 0.5
    ) -> None:
        super().__init__(spec)
        self.color, self.translation, self.cutout = color, translation, cutout

    def forward(self, x: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [-1, 1], each on its own."""
        everything = torch.ones(len(x), device=x.device)
        if self.color:
            x = recolor(x, everything)
        if self.translation:
            x = translate(x, self.translation)
        return cut_out(x, self.cutout) if self.cutout else x


@register("augmentation", "ada")
class Adaptive(Augmentation):
    """Changes of colour and place, each with a probability that follows from over-fitting.

    The signal is the mean sign of the logits of real images: 0 where they look like generated ones, 1 where
    none does. Above the target the probability rises, below it falls (Karras et al. 2020, arXiv:2006.06676). The
    changes are brightness, contrast, saturation; and translation, rotation and zoom with reflected borders.

    Args:
        spec: what the data looks like.
        target: of the signal.
        rise_images: real images in which the probability can go from 0 to 1.
        maximum: of the probability.
    """

    needs_logits = True
    probability: Tensor
    signal: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        target: Fraction = 0.6,
        rise_images: Positive = 100_000,
        maximum: Annotated[float, Interval(ge=0, lt=1)] = SAFE,
    ) -> None:
        super().__init__(spec)
        self.target, self.rise_images, self.maximum = target, rise_images, maximum
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("signal", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [-1, 1], each on its own."""
        place, color = (torch.rand(len(x), 3, device=x.device) < self.probability for _ in range(2))
        return recolor(move(x, place.float()), *color.float().unbind(1))

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Follow the mean sign of logits of real images (n,)."""
        self.signal.copy_(logits.float().sign().mean())
        step = torch.sign(self.signal - self.target) * len(logits) / self.rise_images
        self.probability.add_(step).clamp_(0, self.maximum)

    def state_terms(self) -> dict[str, Tensor]:
        """The probability and its signal."""
        return {"augment_probability": self.probability, "overfitting": self.signal}


# -- changes of images (B, C, H, W) in [-1, 1] ---------------------------------------------------------------------


def uniform(x: Tensor) -> Tensor:
    """Numbers in [-1, 1), one for each image, (B, 1, 1, 1)."""
    return torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) * 2 - 1


def recolor(x: Tensor, brightness: Tensor, contrast: Tensor | None = None, saturation: Tensor | None = None) -> Tensor:
    """Change brightness, contrast and saturation by random amounts times given strengths (B,).

    Without the last two, their strengths are the first.
    """
    strengths = [
        (brightness if s is None else s).to(x)[:, None, None, None] for s in (brightness, contrast, saturation)
    ]
    x = torch.where(strengths[0] > 0, x + 2 * BRIGHTNESS * uniform(x) * strengths[0], x)
    if x.shape[1] == len("RGB"):
        grey = x.mean(1, keepdim=True)
        vivid = grey + (x - grey) * (1 + SATURATION * uniform(x) * strengths[2])
        x = torch.where(strengths[2] > 0, vivid, x)
    mean = x.mean((1, 2, 3), keepdim=True)
    return torch.where(strengths[1] > 0, mean + (x - mean) * (1 + CONTRAST * uniform(x) * strengths[1]), x)


def translate(x: Tensor, share: float) -> Tensor:
    """Shift each image by whole pixels, up to a share of its size; black comes in."""
    n, _, height, width = x.shape
    (up, left), x = (round(share * size) for size in (height, width)), x + 1  # black is 0 for the padding
    padded = F.pad(x, (left, left, up, up))
    rows = torch.randint(0, 2 * up + 1, (n, 1), device=x.device) + torch.arange(height, device=x.device)  # (B, H)
    columns = torch.randint(0, 2 * left + 1, (n, 1), device=x.device) + torch.arange(width, device=x.device)
    images = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return moved.permute(0, 3, 1, 2) - 1


def cut_out(x: Tensor, share: float) -> Tensor:
    """Make a square grey; its centre is anywhere in the image, so that part of it may be outside."""
    n, _, height, width = x.shape
    hit = []
    for size in (height, width):
        side = round(share * size)
        begin = torch.randint(0, size + (side + 1) % 2, (n, 1), device=x.device) - side // 2
        place = torch.arange(size, device=x.device)
        hit.append((place >= begin) & (place < begin + side))  # (B, size)
    return x.masked_fill((hit[0][:, :, None] & hit[1][:, None, :])[:, None], 0.0)


def move(x: Tensor, strength: Tensor) -> Tensor:
    """Translate, rotate and zoom by random amounts times strengths (B, 3), with reflected borders.

    Images whose strengths are all 0 stay as they are, bit for bit.
    """
    amount = (torch.rand(len(x), 4, device=x.device) * 2 - 1) * strength[:, [0, 0, 1, 2]]
    angle, zoom = TURN * amount[:, 2], torch.exp2(ZOOM * amount[:, 3])
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    ratio = x.shape[2] / x.shape[3]  # height over width, so that a rotation stays one
    matrix = torch.stack(
        [
            torch.stack([cos, -sin * ratio, 2 * SHIFT * amount[:, 0]], 1),
            torch.stack([sin / ratio, cos, 2 * SHIFT * amount[:, 1]], 1),
        ],
        1,
    )  # (B, 2, 3)
    exact = torch.promote_types(x.dtype, torch.float32)
    grid = F.affine_grid(matrix.to(exact), list(x.shape), align_corners=False)
    moved = F.grid_sample(x.to(exact), grid, padding_mode="reflection", align_corners=False)
    return torch.where((strength > 0).any(1)[:, None, None, None], moved.to(x.dtype), x)
