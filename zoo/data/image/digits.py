"""Handwritten digits that scikit-learn ships."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split

N_VAL, N_TEST = 180, 180


@register("data", "digits")
class Digits(DataModule):
    """Handwritten digits of scikit-learn: 8x8, 17 grey levels; 1,437 training, 180 validation and 180 test images.

    Source: Alpaydin & Kaynak 1998. The split is one fixed permutation (seed 0).

    Args:
        batch_size: samples per batch.
        seed: seed of the training order.
    """

    licence = "CC-BY-4.0"

    def __init__(self, *, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed)

    @property
    def spec(self) -> DataSpec:
        """Images (1, 8, 8) of ten classes."""
        return DataSpec(Image(1, 8, 8, levels=17), Label(10), name="digits")

    def load(self) -> None:
        """Read and split the table."""
        rows = torch.as_tensor(table())
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        x = rows[order, :64].float().view(-1, 1, 8, 8) / 16
        y = rows[order, 64].long()
        held = N_VAL + N_TEST
        self.train = x[:-held], y[:-held]
        self.val: Split = x[-held:-N_TEST], y[-held:-N_TEST]
        self.test: Split = x[-N_TEST:], y[-N_TEST:]


def table() -> NDArray[np.float64]:
    """Read pixels from 0 to 16, row by row, then the digit: (1797, 65).

    The file is read directly if it is in its usual place, because importing scikit-learn is slow.
    """
    package = find_spec("sklearn")
    for folder in package.submodule_search_locations or () if package else ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack([found.data, found.target])
