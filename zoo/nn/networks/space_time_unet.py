"""A U-Net for videos whose layers act in space or in time, not in both."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Video
from zoo.nn.blocks.folding import Folding
from zoo.nn.blocks.layers import norm2d, resolutions
from zoo.nn.blocks.noise_embedding import Context, NoiseEmbedding
from zoo.nn.networks.unet import CrossAttention2d, ResidualBlock, SelfAttention2d, Size, UNetLevels


class TimeMixing(nn.Module):
    """Residual attention of each place to itself in all frames, after a convolution over three frames.

    The output layer starts at zero, so that an untrained network treats frames as independent images. Frames have
    learned positions.
    """

    def __init__(self, channels: int, frames: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(channels // head_width, 1)
        self.norm = norm2d("group", channels)
        self.position = nn.Parameter(0.02 * torch.randn(frames, channels))
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Frames of all videos (B F, C, H, W) -> the same shape."""
        frames, (height, width) = len(self.position), x.shape[-2:]
        h = self.norm(x).unflatten(0, (-1, frames)).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (B H W, C, F)
        h = F.silu(self.conv(h)).mT + self.position  # (B H W, F, C)
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B H W, heads, F, D)
        h = h + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        back = self.out(h).unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2)  # (B, F, C, H, W)
        return x + back.flatten(0, 1)


@register("denoiser", "space_time_unet")
class SpaceTimeUNet(UNetLevels):
    """Noisy videos (B, F, C, H, W) -> outputs (B, F, n_out * C, H, W), factorised (Ho et al. 2022, arXiv:2204.03458).

    Each block is that of `unet` in every frame, then a convolution and attention over frames at every place.

    Args:
        shape: (F, C, H, W).
        n_out: outputs per value.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; 2 for flow maps.
        context_width: of a text's features, which every spatial attention is followed by attention to; 0 ignores texts.
        width: feature maps at full resolution.
        multipliers: of `width` at each resolution; every further one has half the size, down to about 4x4.
        depth: blocks per resolution.
        patch: side of the squares of pixels that the first layer reads as one place; a larger one takes less time.
        attention_size: attend in space at resolutions of at most so many places per side.
        dropout: inside the blocks.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Video,)

    def __init__(
        self,
        shape: Sequence[int],
        n_out: int,
        n_classes: int,
        n_levels: int = 1,
        context_width: int = 0,
        *,
        width: PositiveInt = 32,
        multipliers: tuple[int, ...] = (1, 2),
        depth: PositiveInt = 1,
        patch: PositiveInt = 2,
        attention_size: Count = 8,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
    ) -> None:
        super().__init__()
        if len(shape) != 4:
            given = "x".join(map(str, shape))
            raise ZooError(
                f"network=space_time_unet: needs videos (F, C, H, W), but a sample here is {given}. Choose "
                f"model/denoiser=auto instead."
            )
        self.frames, channels, height, width_px = shape
        self.folding = Folding(height, width_px, patch)
        sizes = resolutions(self.folding.rows, self.folding.columns)[: len(multipliers)]
        widths = [width * m for m in multipliers[: len(sizes)]]
        n_condition = 4 * width
        self.embedding = NoiseEmbedding(n_condition, n_classes, n_levels, context_width)
        self.stem = nn.Conv2d(channels * patch**2, width, 3, padding=1)

        def block(n_in: int, n: int, size: Size) -> nn.ModuleList:
            layers: list[nn.Module] = [ResidualBlock(n_in, n, n_condition, size, dropout)]
            if max(size) <= attention_size:
                layers += [SelfAttention2d(n), *([CrossAttention2d(n, context_width)] if context_width else [])]
            return nn.ModuleList([*layers, TimeMixing(n, self.frames)])

        n = self.build_levels(width, widths, sizes, depth, block, lambda n, size: block(n, n, size))
        self.head = nn.Conv2d(n, n_out * channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, noise: Tensor, y: Tensor | None = None, context: Context | None = None) -> Tensor:
        """(B, F, C, H, W), noise levels (B,) or (B, n_levels), labels (B,), texts -> (B, F, n_out * C, H, W)."""
        condition = F.silu(self.embedding(noise, y, context)).repeat_interleave(self.frames, 0)  # (B F, D)
        if context is not None:
            context = Context(*(part.repeat_interleave(self.frames, 0) for part in context))
        h = self.stem(self.folding.fold(z.flatten(0, 1)))  # (B F, width, rows, columns)
        out = self.folding.unfold(self.head(self.through_levels(h, condition, context)))
        return out.unflatten(0, (-1, self.frames))
