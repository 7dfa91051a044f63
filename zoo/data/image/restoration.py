"""Pairs of images for restoration: a degraded image is the condition of the original."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core import registry
from zoo.core.errors import ConfigError, DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@register("data", "restoration")
class Restoration(DataModule):
    """Images of any data set, each given its low-resolution or grey version (SR3 and Palette, arXiv:2111.05826).

    Labels of the data set are left out.

    Args:
        source: the data set: a registered name, or a mapping of `name` and settings.
        degrade: "resolution" takes means of squares; "color" takes the brightness.
        factor: side of the squares, in pixels.
        batch_size: samples per batch.
        seed: seed of the training order.

    Raises:
        DataError: data that are not images, or not colour images.
        ConfigError: a factor that does not divide both sides.
    """

    def __init__(
        self,
        *,
        source: str | dict[str, Any] = "digits",
        degrade: Literal["resolution", "color"] = "resolution",
        factor: PositiveInt = 2,
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        settings = {"name": source} if isinstance(source, str) else source
        self.source: DataModule = registry.build(
            "data", {"batch_size": batch_size, "seed": seed, **settings}, where="data.source"
        )
        self.degrade, self.factor = degrade, factor
        self.keep_on_gpu, self.flip, self.prefetch = self.source.keep_on_gpu, self.source.flip, self.source.prefetch
        x = self.source.spec.x
        if not isinstance(x, Image) or (degrade == "color" and x.channels != len(LUMA)):
            kind = "colour images" if degrade == "color" else "images"
            raise DataError(f"data.source={settings['name']}: {x}, not {kind}. Choose other data.")
        if degrade == "resolution" and (x.height % factor or x.width % factor):
            raise ConfigError(f"data.factor={factor}: does not divide {x.height}x{x.width}. Choose a divisor of both.")

    @property
    def spec(self) -> DataSpec:
        """The images, given smaller or grey ones."""
        x = self.source.spec.image
        if self.degrade == "color":
            given = Image(1, x.height, x.width)
        else:
            given = Image(x.channels, x.height // self.factor, x.width // self.factor)
        return DataSpec(x, given, name=f"{self.source.spec.name}_{self.degrade}")

    def load(self) -> None:
        """Load the data set."""
        self.source.setup()
        self.train, self.val, self.test = self.source.train, self.source.val, self.source.test

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Images (B, C, H, W), and their degraded versions."""
        x, _ = self.source.fetch(split, indices, generator, train=train)
        return x, self.degraded(x)

    def resident_tensors(self) -> list[Tensor]:
        """Those of the data set."""
        return self.source.resident_tensors()

    def degraded(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> their condition."""
        if self.degrade == "color":
            return (x * torch.tensor(LUMA, device=x.device).view(-1, 1, 1)).sum(1, keepdim=True)
        return F.avg_pool2d(x, self.factor)
