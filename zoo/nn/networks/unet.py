"""A U-Net for images of any size, in the style of ADM and EDM."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.folding import Folding
from zoo.nn.blocks.layers import image_shape, norm2d, resolutions
from zoo.nn.blocks.noise_embedding import Context, NoiseEmbedding

Size = tuple[int, int]


class ResidualBlock(nn.Module):
    """Residual block whose second norm is scaled and shifted by the condition; resampled to `size` if that differs.

    (Dhariwal & Nichol 2021, arXiv:2105.05233, section 3.)
    """

    def __init__(self, n_in: int, n_out: int, n_condition: int, size: Size, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.norm1, self.norm2 = norm2d("group", n_in), norm2d("group", n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.modulation = nn.Linear(n_condition, 2 * n_out)
        self.drop = nn.Dropout(dropout)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, n_in, H, W), (B, n_condition) -> (B, n_out, *size)."""
        x, h = resample(x, self.size), resample(F.silu(self.norm1(x)), self.size)
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(self.conv1(h)) * (1 + scale) + shift)
        return (self.skip(x) + self.conv2(self.drop(h))) * math.sqrt(0.5)


def resample(x: Tensor, size: Size) -> Tensor:
    """Nearest neighbour upwards; means of 2x2 windows downwards, cropped at odd edges."""
    if x.shape[-2:] == size:
        return x
    if size[0] > x.shape[-2] or size[1] > x.shape[-1]:
        return F.interpolate(x, size=size)
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


class SelfAttention2d(nn.Module):
    """Residual self-attention over all pixels, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(channels // head_width, 1)
        self.norm = norm2d("group", channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).mT.unbind(1)  # (B, heads, HW, D)
        h = F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2).unflatten(-1, x.shape[-2:])
        return (x + self.out(h)) * math.sqrt(0.5)


class CrossAttention2d(nn.Module):
    """Residual attention of all pixels to the features of a text (Rombach et al. 2021, arXiv:2112.10752)."""

    def __init__(self, channels: int, context_width: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(channels // head_width, 1)
        self.norm = norm2d("group", channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Linear(context_width, 2 * channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(B, C, H, W), texts (B, S, D) -> (B, C, H, W)."""
        q = self.query(self.norm(x)).flatten(2).unflatten(1, (self.heads, -1)).mT  # (B, heads, HW, D)
        k, v = (
            self.key_value(context.tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, S, D)
        h = F.scaled_dot_product_attention(q, k, v, context.mask).mT.flatten(1, 2).unflatten(-1, x.shape[-2:])
        return (x + self.out(h)) * math.sqrt(0.5)


class UNetLevels(nn.Module):
    """The levels of a U-Net, between a first and a last layer of a subclass: down, the middle, and up with skips."""

    def build_levels(
        self,
        width: int,
        widths: Sequence[int],
        sizes: Sequence[Size],
        depth: int,
        block: Callable[[int, int, Size], nn.ModuleList],
        middle: Callable[[int, Size], nn.ModuleList],
    ) -> int:
        """Build them; return the number of feature maps of the output.

        Args:
            width: feature maps of the input.
            widths: feature maps at each resolution.
            sizes: (H, W) of each resolution; the first one is that of the input.
            depth: blocks per resolution.
            block: layers from so many feature maps to so many, resampled to a size.
            middle: layers at the last resolution.
        """
        current, kept = width, [width]  # feature maps now, and of the stored outputs
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (size, n) in enumerate(zip(sizes, widths, strict=True)):
            for _ in range(depth + (level > 0)):  # the first block of a further resolution halves
                self.down.append(block(current, n, size))
                current = n
                kept.append(n)
        self.middle = middle(current, sizes[-1])
        for level in reversed(range(len(sizes))):
            for _ in range(depth + 1):  # one for each stored output of this resolution
                self.up.append(block(current + kept.pop(), widths[level], sizes[level]))
                current = widths[level]
        self.norm = norm2d("group", current)
        return current

    def through_levels(self, h: Tensor, condition: Tensor, context: Context | None) -> Tensor:
        """Feature maps (B, width, H, W), conditions (B, D), texts -> (B, n, H, W), normalised and activated."""
        stored = [h]
        for layers in self.down:
            h = run(layers, h, condition, context)
            stored.append(h)
        h = run(self.middle, h, condition, context)
        for layers in self.up:
            skip = stored.pop()
            h = run(layers, torch.cat([resample(h, (skip.shape[2], skip.shape[3])), skip], dim=1), condition, context)
        return F.silu(self.norm(h))


@register("denoiser", "unet")
class UNet(UNetLevels):
    """Noisy images (B, C, H, W) -> outputs (B, n_out * C, H, W) (Ronneberger et al. 2015; Karras et al. 2022).

    Args:
        shape: (C, H, W).
        n_out: outputs per value.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; 2 for flow maps.
        context_width: of a text's features, which every self-attention is followed by attention to; 0 ignores texts.
        width: feature maps at full resolution.
        multipliers: of `width` at each resolution; every further one has half the size, down to about 4x4.
        depth: residual blocks per resolution.
        patch: side of the squares of pixels that the first layer reads as one place. Full resolution is then that of
            the places: 28x28 with patches of 2 runs at 14x14. Wide layers at a low resolution take less time. The
            skip of the first layer brings every pixel to the last block, if `width` is at least C * patch^2.
        attention_size: attend at resolutions of at most so many places per side.
        dropout: inside the blocks.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        n_out: int,
        n_classes: int,
        n_levels: int = 1,
        context_width: int = 0,
        *,
        width: PositiveInt = 32,
        multipliers: tuple[int, ...] = (1, 2, 2),
        depth: PositiveInt = 1,
        patch: PositiveInt = 1,
        attention_size: Count = 8,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("unet", shape)
        self.folding = Folding(height, width_px, patch)
        sizes = resolutions(self.folding.rows, self.folding.columns)[: len(multipliers)]
        widths = [width * m for m in multipliers[: len(sizes)]]
        n_condition = 4 * width
        self.embedding = NoiseEmbedding(n_condition, n_classes, n_levels, context_width)
        self.stem = nn.Conv2d(channels * patch**2, width, 3, padding=1)

        def attend(n: int) -> list[nn.Module]:
            return [SelfAttention2d(n), *([CrossAttention2d(n, context_width)] if context_width else [])]

        def block(n_in: int, n_out: int, size: Size) -> nn.ModuleList:
            layers: list[nn.Module] = [ResidualBlock(n_in, n_out, n_condition, size, dropout)]
            if max(size) <= attention_size:
                layers += attend(n_out)
            return nn.ModuleList(layers)

        def middle(n: int, size: Size) -> nn.ModuleList:
            def residual() -> nn.Module:
                return ResidualBlock(n, n, n_condition, size, dropout)

            return nn.ModuleList([residual(), *attend(n), residual()])

        n = self.build_levels(width, widths, sizes, depth, block, middle)
        self.head = nn.Conv2d(n, n_out * channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, noise: Tensor, y: Tensor | None = None, context: Context | None = None) -> Tensor:
        """(B, C, H, W), noise levels (B,) or (B, n_levels), labels (B,), texts -> (B, n_out * C, H, W)."""
        condition = F.silu(self.embedding(noise, y, context))
        h = self.through_levels(self.stem(self.folding.fold(z)), condition, context)
        return self.folding.unfold(self.head(h))


def run(layers: nn.Module, h: Tensor, condition: Tensor, context: Context | None) -> Tensor:
    """Apply residual blocks and attention in order."""
    for layer in layers.children():
        if isinstance(layer, ResidualBlock):
            h = layer(h, condition)
        else:
            h = layer(h, context) if isinstance(layer, CrossAttention2d) else layer(h)
    return h
