"""Handwritten digits that come with scikit-learn: real, 8x8, in every installation."""

import torch

from zoo.data.base import DataModule, Split
from zoo.registry import register
from zoo.spec import DataSpec, PositiveInt

N_VAL, N_TEST = 180, 180


@register("data", "digits")
class Digits(DataModule):
    """1,797 handwritten digits, 8x8, 17 grey levels (Alpaydin & Kaynak 1998, as shipped by scikit-learn).

    Split: one fixed permutation (seed 0) gives 1,437 training, 180 validation and 180 test images.
    """

    def __init__(self, *, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed)

    @property
    def spec(self) -> DataSpec:
        """Images 1x8x8 of ten classes."""
        return DataSpec("image", (1, 8, 8), n_classes=10, levels=17, name="digits")

    def load(self) -> None:
        """Read scikit-learn's copy and split it."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        order = torch.randperm(len(bunch.images), generator=torch.Generator().manual_seed(0))
        x = torch.as_tensor(bunch.images, dtype=torch.float32)[order, None] / 16  # (1797, 1, 8, 8)
        y = torch.as_tensor(bunch.target)[order].long()
        held = N_VAL + N_TEST
        self.train = x[:-held], y[:-held]
        self.val: Split = x[-held:-N_TEST], y[-held:-N_TEST]
        self.test: Split = x[-N_TEST:], y[-N_TEST:]
