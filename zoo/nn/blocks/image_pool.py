"""Pool of generated images of earlier batches, for the discriminator."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """History of generated images (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).

    Until the pool is full, images are stored and returned. Then each image is exchanged with probability 1/2 for a
    stored one, which is returned in its place. Images of a batch are exchanged for different places. The content is a
    part of the weights, so that a resumed training is the same one.

    Args:
        size: images in the pool; 0 returns images as they are.
        shape: of an image.
    """

    images: Tensor
    stored: Tensor

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer(
            "images", torch.zeros(size + 1, *shape)
        )  # the last place receives images that are not stored
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, x: Tensor) -> Tensor:
        """Images (B, *shape) -> images of the same number, some of earlier batches; nothing waits for the device."""
        if not self.size:
            return x
        x, found = x[: self.size].to(self.images.dtype), x
        n, place = len(x), torch.arange(len(x), device=x.device)
        full = self.stored >= self.size
        chosen = torch.rand(self.size, device=x.device).argsort()[:n]  # different places
        target = torch.where(full, chosen, self.stored + place)
        kept = torch.where(full, torch.rand(n, device=x.device) < 0.5, target < self.size)  # images to store
        back = kept & full  # images to return from the pool
        earlier = self.images[target.clamp(max=self.size)]
        wide = back.view(-1, *[1] * (x.ndim - 1))
        self.images.index_copy_(0, torch.where(kept, target, self.size), x)
        self.images[self.size].zero_()
        self.stored.add_(n).clamp_(max=self.size)
        return torch.cat([torch.where(wide, earlier, x), found[self.size :]]).to(found.dtype)
