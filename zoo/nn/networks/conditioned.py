"""Denoising networks that are given an image or a text: with each sample, or not (classifier-free dropping)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.spaces import ABSENT
from zoo.nn.blocks.noise_embedding import Context

NO_IMAGE = -1.0  # all values of an image that is left out


class ImageConditioned(nn.Module):
    """A network that sees an image in further channels, resized to the data, and whether it is given.

    (Saharia et al. 2021, SR3, arXiv:2104.07636; Palette, arXiv:2111.05826.)

    Args:
        inner: denoiser of `channels` and those of the image and one, of which the first outputs are used.
        channels: of the data.
        image_channels: of the image.
        size: height and width of the data.
    """

    def __init__(self, inner: nn.Module, channels: int, image_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.inner, self.channels, self.image_channels, self.size = inner, channels, image_channels, size

    def forward(self, z: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, C, H, W), noise levels (B,), images in [0, 1] (B, C', H', W') or None -> (B, n_out * C, H, W)."""
        if y is None:
            y = z.new_full((len(z), self.image_channels, *self.size), NO_IMAGE)
        given = (y >= 0).flatten(1).all(1).view(-1, 1, 1, 1).to(z.dtype)
        picture = F.interpolate(y.to(z.dtype), self.size, mode="nearest-exact")
        seen = torch.cat([z, (2 * picture - 1) * given, given.expand(-1, -1, *self.size)], dim=1)
        output = self.inner(seen, noise, None).unflatten(1, (-1, seen.shape[1]))  # (B, n_out, C + C' + 1, H, W)
        return output[:, :, : self.channels].flatten(1, 2)


class TextConditioned(nn.Module):
    """A network that attends to the features of a text.

    One learned feature precedes every text, and stands alone for no text.

    Args:
        inner: denoiser that reads texts.
        encoder: tokens (B, S) -> features (B, S, D), by its method `features`.
        width: D.
    """

    def __init__(self, inner: nn.Module, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.encoder = inner, encoder
        self.start = nn.Parameter(torch.randn(1, 1, width))

    def context(self, y: Tensor) -> Context:
        """Tokens (B, S), negative for padding and in all places for no text -> features (B, S + 1, D)."""
        real = y >= 0
        readable = torch.where(real.any(1, keepdim=True), y, torch.zeros_like(y))  # attention needs a position
        features = self.encoder.features(readable)  # type: ignore[operator]
        tokens = torch.cat([self.start.to(features.dtype).expand(len(y), -1, -1), features], dim=1)
        return Context(tokens, F.pad(real, (1, 0), value=True))

    def forward(self, z: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, *shape), noise levels (B,), tokens (B, S) or None -> (B, n_out * C, ...)."""
        if y is None:
            y = torch.full((len(z), 1), ABSENT, device=z.device)
        return self.inner(z, noise, None, self.context(y))
