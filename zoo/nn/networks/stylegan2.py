"""The generator of StyleGAN2 for images of any size."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.layers import image_shape, resolutions
from zoo.nn.blocks.modulated_conv import EPS, BilinearResize, EqualizedLinear, ModulatedConv
from zoo.nn.networks.conv import channels_at

MAPPING_SPEED = 0.01  # factor on the mapping's learning rate, as in StyleGAN (1812.04948, appendix C)
MEAN_DECAY = 0.998  # of the mean style, for each batch

Size = tuple[int, int]


def unit_length(x: Tensor) -> Tensor:
    """Vectors (B, D) with a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + EPS).rsqrt()


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU with the gain that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and activation, on maps that are first resized.

    In training the noise is new in each batch; in evaluation it is one fixed picture, so that equal latents give equal
    images.
    """

    fixed: Tensor

    def __init__(self, n_in: int, n_out: int, style_dim: int, size: Size, to: Size, noise: bool) -> None:
        super().__init__()
        self.resize = BilinearResize(size, to) if size != to else nn.Identity()
        self.conv = ModulatedConv(n_in, n_out, style_dim)
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        self.register_buffer("fixed", torch.randn(1, 1, *to) if noise else None)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, n_in, *size), (B, style_dim) -> (B, n_out, *to)."""
        h = self.conv(self.resize(x), w)
        if self.strength is not None:
            noise = torch.randn_like(h[:, :1]) if self.training else self.fixed.to(h.dtype)
            h = h + self.strength * noise
        return activate(h + self.bias[:, None, None])


@register("decoder", "stylegan2")
class StyleDecoder(nn.Module):
    """Vectors (B, in_dim) -> styles -> images (B, C, H, W) (Karras et al. 2019, StyleGAN2, arXiv:1912.04958).

    `mapping` turns the input into a style, and `synthesis` turns the style into an image. Learned constant maps pass
    through modulated convolutions at each resolution. Its colours are added to the enlarged ones of the resolution
    below (skip outputs, figure 7). Enlarging is bilinear, in place of the paper's filters.

    `mean_style` follows the mean of the styles in training; styles nearer to it give more typical images.

    Each layer may have its own style: convolutions from the lowest resolution up, and colours with that of the next
    convolution. The last of the `n_styles` styles is that of the last colours alone.

    Args:
        in_dim: size of the input vector.
        shape: (C, H, W).
        n_condition: numbers at the end of the input that describe the class: both parts are scaled to unit length.
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
        style_dim: size of the style.
        mapping_depth: layers of the mapping; 8 in the paper.
        noise: add noise to the feature maps, with a learned strength.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)
    takes_condition = True
    mean_style: Tensor

    def __init__(
        self,
        in_dim: int,
        shape: Sequence[int],
        n_condition: int = 0,
        *,
        width: PositiveInt = 32,
        style_dim: PositiveInt = 128,
        mapping_depth: PositiveInt = 4,
        noise: bool = True,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape("stylegan2", shape)
        sizes = resolutions(height, width_px)[::-1]  # smallest first
        widths = [channels_at(level, width) for level in range(len(sizes))][::-1]
        self.noise_dim = in_dim - n_condition
        inputs = [in_dim, *[style_dim] * (mapping_depth - 1)]
        self.layers = nn.ModuleList(EqualizedLinear(n_in, style_dim, speed=MAPPING_SPEED) for n_in in inputs)
        self.register_buffer("mean_style", torch.zeros(style_dim))
        self.constant = nn.Parameter(torch.randn(1, widths[0], *sizes[0]))
        self.convs, self.colours, self.enlarge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before, n_in = sizes[0], widths[0]
        for size, n in zip(sizes, widths, strict=True):
            first = [] if size == sizes[0] else [StyledConv(n_in, n, style_dim, before, size, noise)]
            self.convs.append(nn.ModuleList([*first, StyledConv(n, n, style_dim, size, size, noise)]))
            self.colours.append(ModulatedConv(n, channels, style_dim, kernel=1, demodulate=False))
            self.enlarge.append(BilinearResize(before, size) if first else nn.Identity())
            before, n_in = size, n
        self.bias = nn.Parameter(torch.zeros(channels))
        self.n_styles = 2 * len(sizes)  # one convolution, two of each further resolution, and the last colours

    def mapping(self, v: Tensor) -> Tensor:
        """(B, in_dim) -> styles (B, style_dim)."""
        parts = v.split((self.noise_dim, v.shape[1] - self.noise_dim), dim=1)
        w = torch.cat([unit_length(part) for part in parts if part.shape[1]], dim=1)
        for layer in self.layers:
            w = activate(layer(w))
        if self.training:
            with torch.no_grad():
                self.mean_style.lerp_(w.detach().mean(0).to(self.mean_style.dtype), 1 - MEAN_DECAY)
        return w

    def synthesis(self, w: Tensor) -> Tensor:
        """Styles (B, style_dim), or one for each layer (B, n_styles, style_dim) -> (B, C, H, W)."""
        styles = w.unbind(1) if w.ndim == 3 else [w] * self.n_styles
        h = self.constant.expand(len(w), -1, -1, -1)
        picture, layer = torch.zeros((), dtype=h.dtype, device=h.device), 0
        for convs, colour, enlarge in zip(self.convs, self.colours, self.enlarge, strict=True):
            for conv in convs.children():
                h = conv(h, styles[layer])
                layer += 1
            picture = enlarge(picture) + colour(h, styles[layer])  # the style of the next convolution
        return picture + self.bias[:, None, None]

    def forward(self, v: Tensor) -> Tensor:
        """(B, in_dim) -> (B, C, H, W)."""
        return self.synthesis(self.mapping(v))
