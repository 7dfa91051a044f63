"""Folding: the pixels of a square patch become channels of one place, so that a network runs at a lower resolution."""

from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError


class Folding:
    """Images of one size to places of patches, and back (Shi et al. 2016, arXiv:1609.05158, read in both directions).

    Images whose sides are not multiples of the patch have zeros at the bottom and the right, which `unfold` cuts off.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        patch: side of a patch, in pixels; 1 changes nothing.

    Raises:
        ZooError: a patch that is larger than the images.
    """

    def __init__(self, height: int, width: int, patch: int) -> None:
        if patch > max(height, width, 2):
            raise ZooError(
                f"patch={patch}: larger than images of {height}x{width} pixels. Choose at most {max(height, width)}."
            )
        self.height, self.width, self.patch = height, width, patch
        self.rows, self.columns = -(-height // patch), -(-width // patch)

    def fold(self, x: Tensor) -> Tensor:
        """(B, C, height, width) -> (B, C * patch^2, rows, columns)."""
        if self.patch == 1:
            return x
        missing = self.columns * self.patch - self.width, self.rows * self.patch - self.height
        return F.pixel_unshuffle(F.pad(x, (0, missing[0], 0, missing[1])), self.patch)

    def unfold(self, h: Tensor) -> Tensor:
        """(B, C * patch^2, rows, columns) -> (B, C, height, width)."""
        return h if self.patch == 1 else F.pixel_shuffle(h, self.patch)[..., : self.height, : self.width]
