"""Stacked MNIST: colour images of 1,000 modes, to count the modes that a model covers."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.image.torchvision import MNIST
from zoo.data.loader import make_generator

SIZES = {"train": 128_000, "val": 5_000, "test": 26_000}


@register("data", "stacked_mnist")
class StackedMNIST(MNIST):
    """Three MNIST digits as the channels of a 28x28 image: 1,000 modes (Metz et al. 2016, arXiv 1611.02163).

    The label of digits a, b, c is 100a + 10b + c. There are 128,000 training, 5,000 validation and 26,000 test images,
    each made from MNIST's images of the same split. The choice of digits is fixed, and images are made per batch.

    Modes are counted in 26,000 samples by a classifier of each channel, in `StackedFeatures`
    (zoo/evaluation/features/base.py).
    """

    licence = "CC-BY-SA-3.0"

    pixels: Tensor  # all of MNIST, uint8 (N, 28, 28)

    def __init__(
        self, *, batch_size: PositiveInt = 64, seed: int = 0, path: str | None = None, download: bool = True
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, path=path, download=download)

    @property
    def spec(self) -> DataSpec:
        """Images (3, 28, 28) of 1,000 classes."""
        return DataSpec(Image(3, 28, 28), Label(1000), name=self.registered_name)

    def load(self) -> None:
        """Read MNIST, and choose the digits of every image."""
        super().load()
        singles = (self.train, self.val, self.test)
        self.pixels = torch.cat([x[:, 0] for x, _ in singles])
        splits: list[Split] = []
        first = 0
        for number, ((x, y), size) in enumerate(zip(singles, SIZES.values(), strict=True)):
            rows = torch.randint(len(x), (size, 3), generator=make_generator(number))
            splits.append((first + rows, y[rows] @ torch.tensor([100, 10, 1])))
            first += len(x)
        self.train, self.val, self.test = splits  # x: three rows of `pixels` (N, 3)

    def resident_tensors(self) -> list[Tensor]:
        """Indices of the digits, and all of MNIST."""
        return [*super().resident_tensors(), self.pixels]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, 3, 28, 28)."""
        rows, y = DataModule.fetch(self, split, indices, generator, train=train)
        return as_float(self.on_device(rows, self.pixels)[rows]), y
