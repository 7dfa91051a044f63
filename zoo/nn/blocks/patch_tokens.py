"""Images, sounds and grids of codes as sequences of tokens."""

import math

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.space import Space
from zoo.core.spaces import Audio, Codes, Image
from zoo.nn.blocks.mu_law import LEVELS, mu_law_decode, mu_law_encode

MAX_TOKENS = 2**16  # combinations of levels in a patch, which is the size of the head


class PatchTokens:
    """Images on a grid of levels as tokens in raster order (row, column, channel), without loss.

    Args:
        space: of the images.
        patch: height and width of the rectangle whose pixels are one token; (1, 1) is one token for each value.

    Raises:
        ZooError: a patch that does not divide the image or has too many combinations of levels.
    """

    def __init__(self, space: Image, patch: tuple[int, int]) -> None:
        (rows, columns), levels = patch, space.n_levels
        if space.height % rows or space.width % columns:
            raise ZooError(
                f"model.patch=[{rows},{columns}] does not divide images of {space.height}x{space.width}. Choose "
                "divisors of both."
            )
        pixels = rows * columns
        if levels**pixels > MAX_TOKENS:
            raise ZooError(
                f"model.patch=[{rows},{columns}] of {levels} levels makes {levels}^{pixels} tokens, more than "
                f"{MAX_TOKENS}. Choose a smaller patch."
            )
        self.space, self.patch = space, (rows, columns)
        self.n_tokens, self.length = levels**pixels, space.size // pixels

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] as tokens (B, T): the levels of a patch are the digits of a number."""
        rows, columns = self.patch
        level = (x * (self.space.levels - 1)).round().long()
        level = level.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, C, H/r, r, W/c, c)
        digits = level.permute(0, 2, 4, 1, 3, 5).flatten(4)  # (B, H/r, W/c, C, r c)
        return (digits * self._place_values(x.device)).sum(-1).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Inverse of `encode`."""
        (channels, height, width), (rows, columns) = self.space.shape, self.patch
        digits = tokens[..., None] // self._place_values(tokens.device) % self.space.levels
        level = digits.reshape(tokens.shape[0], height // rows, width // columns, channels, rows, columns)
        return level.permute(0, 3, 1, 4, 2, 5).reshape(tokens.shape[0], *self.space.shape) / (self.space.levels - 1)

    def _place_values(self, device: torch.device) -> Tensor:
        return self.space.levels ** torch.arange(math.prod(self.patch), device=device)


class CodeTokens:
    """Codes on a grid as tokens in raster order.

    Args:
        space: of the codes.
        patch: must be (1, 1): codes have no order, so that neighbours do not make a number.

    Raises:
        ZooError: another patch.
    """

    def __init__(self, space: Codes, patch: tuple[int, int]) -> None:
        if patch != (1, 1):
            raise ZooError(f"model.patch=[{patch[0]},{patch[1]}]: {space} has no pixels. Leave it out.")
        self.space, self.n_tokens, self.length = space, space.codebook_size, space.size

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, *grid) as tokens (B, T)."""
        return x.flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Inverse of `encode`."""
        return tokens.reshape(tokens.shape[0], *self.space.shape)


class SampleTokens:
    """Samples of sounds as tokens of their mu-law codes, the channels of a sample one after another.

    Args:
        space: of the sounds.
        patch: must be (1, 1).

    Raises:
        ZooError: another patch.
    """

    def __init__(self, space: Audio, patch: tuple[int, int]) -> None:
        if patch != (1, 1):
            raise ZooError(f"model.patch=[{patch[0]},{patch[1]}]: {space} has no pixels. Leave it out.")
        self.space, self.n_tokens, self.length = space, LEVELS, space.size

    def encode(self, x: Tensor) -> Tensor:
        """Sounds (B, C, N) in [-1, 1] as tokens (B, N C)."""
        return mu_law_encode(x).transpose(1, 2).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Inverse of `encode`, up to the rounding of mu-law."""
        return mu_law_decode(tokens).unflatten(1, (self.space.samples, self.space.channels)).transpose(1, 2)


def grid_tokens(space: Space, patch: tuple[int, int]) -> PatchTokens | CodeTokens | SampleTokens:
    """The tokens of images, sounds or codes."""
    if isinstance(space, Audio):
        return SampleTokens(space, patch)
    if isinstance(space, Codes):
        return CodeTokens(space, patch)
    assert isinstance(space, Image)
    return PatchTokens(space, patch)
