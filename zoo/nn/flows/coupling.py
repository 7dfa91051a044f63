"""Coupling flows: RealNVP, Glow and neural spline flows."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Depth, DropoutRate, Positive, PositiveInt
from zoo.nn.flows.base import ActNorm, Chain, InvertibleLinear, Reverse, Transform
from zoo.nn.flows.univariate import Univariate, spline_or_affine


class ResidualBlock(nn.Module):
    """h + f(h), with two layers of one kind."""

    def __init__(self, layer: Any, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.SiLU(), layer(width, width), nn.SiLU(), nn.Dropout(dropout), layer(width, width))

    def forward(self, h: Tensor) -> Tensor:
        """(B, width, ...) -> (B, width, ...)."""
        return h + self.layers(h)


class Conditioner(nn.Module):
    """Kept values (B, n_in, ...) -> parameters (B, n_out, ...), zero at first: a residual network.

    Args:
        n_in: channels or values.
        n_out: parameters per position.
        image: whether the layers are 3x3 convolutions.
        n_classes: 0 ignores labels.
        width: feature maps or units.
        depth: residual blocks.
        dropout: inside the blocks.
    """

    def __init__(
        self, n_in: int, n_out: int, image: bool, n_classes: int, width: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        layer: Any = partial(nn.Conv2d, kernel_size=3, padding=1) if image else nn.Linear
        self.stem = layer(n_in, width)
        self.label = nn.Embedding(n_classes, width) if n_classes else None
        self.blocks = nn.Sequential(*(ResidualBlock(layer, width, dropout) for _ in range(depth)))
        self.head = layer(width, n_out)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, n_in, ...), labels (B,) -> (B, n_out, ...)."""
        h = self.stem(x)
        if self.label is not None:
            h = h + self.label(y).view(*h.shape[:2], *[1] * (h.ndim - 2))
        return self.head(F.silu(self.blocks(h)))


class Coupling(Transform):
    """The first half of dimension 1 stays, and gives the parameters for the second (Dinh et al. 2016, 1605.08803).

    Args:
        channels: size of dimension 1.
        function: of one variable.
        conditioner: kept values -> parameters.
    """

    def __init__(self, channels: int, function: Univariate, conditioner: nn.Module) -> None:
        super().__init__()
        self.sizes, self.function, self.conditioner = [channels // 2, channels - channels // 2], function, conditioner

    def params(self, kept: Tensor, y: Tensor | None) -> Tensor:
        """Parameters (B, n, ..., P) of the other n values."""
        return self.conditioner(kept, y).unflatten(1, (self.sizes[1], -1)).movedim(2, -1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        kept, rest = x.split(self.sizes, 1)
        z, log_slope = self.function.forward(rest, self.params(kept, y))
        return torch.cat([kept, z], 1), log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        kept, rest = z.split(self.sizes, 1)
        return torch.cat([kept, self.function.inverse(rest, self.params(kept, y))], 1)


class Squeeze(Transform):
    """Squares of 2x2 pixels (B, C, H, W) -> channels (B, 4 C, H / 2, W / 2), the white fields of a chessboard first."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        squares = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))  # (B, C, 4, H / 2, W / 2)
        return squares[:, :, [0, 3, 1, 2]].transpose(1, 2).flatten(1, 2), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        squares = z.unflatten(1, (4, -1)).transpose(1, 2)
        return F.pixel_shuffle(squares[:, :, [0, 2, 3, 1]].flatten(1, 2), 2)


class Multiscale(Transform):
    """Levels of transforms; after each but the last, half of the channels are finished (1605.08803, section 3.6).

    Args:
        levels: transforms of images.
        shapes: (C, H, W) of the result of each.
    """

    def __init__(self, levels: Sequence[Transform], shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.shapes = [(c // 2, h, w) for c, h, w in shapes[:-1]] + list(shapes[-1:])  # that each level finishes

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        h, total, done = x, x.new_zeros(x.shape[0]), []
        for number, level in enumerate(self.levels, 1):
            h, log_det = level(h, y)
            total = total + log_det
            if number < len(self.levels):
                h, finished = h.chunk(2, 1)
                done.append(finished.flatten(1))
        return torch.cat([*done, h.flatten(1)], 1).view(x.shape), total

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = [part.unflatten(1, s) for part, s in zip(z.flatten(1).split(sizes, 1), self.shapes, strict=True)]
        h = parts.pop()
        for level in reversed(self.levels):
            h = level.inverse(h, y)  # type: ignore[operator]
            h = torch.cat([h, parts.pop()], 1) if parts else h
        return h


@register("transform", "coupling")
def coupling(
    shape: Sequence[int],
    n_classes: int,
    *,
    univariate: Literal["affine", "spline"] = "affine",
    mixing: Literal["reverse", "linear"] = "reverse",
    act_norm: bool = False,
    n_couplings: Annotated[int, Ge(2)] = 8,
    n_levels: PositiveInt = 2,
    bins: Annotated[int, Ge(2)] = 8,
    bound: Positive = 4.0,
    width: PositiveInt = 64,
    depth: Depth = 1,
    dropout: DropoutRate = 0.0,
) -> Transform:
    """Coupling layers: one half of the values stays, and predicts a monotone function for each value of the other.

    Vectors are halved as they are. Images are halved by channels, after squares of 2x2 pixels have become channels.

    Args:
        shape: of one sample.
        n_classes: 0 ignores labels.
        univariate: "affine" as in RealNVP (1605.08803) and Glow, or "spline" as in neural spline flows (1906.04032).
        mixing: before each coupling, "reverse" the order, or multiply by a learned invertible matrix ("linear").
        act_norm: before that, shift and scale channels (1807.03039).
        n_couplings: in each level.
        n_levels: of images: at each the sides are halved, and half of the values finished; fewer where sides are odd.
        bins: of a spline.
        bound: of a spline, in standard deviations of the data; the identity beyond.
        width: feature maps or units of the conditioners.
        depth: residual blocks of each.
        dropout: inside them.

    Raises:
        ZooError: one value, or a grey image with an odd side, which has no halves.
    """
    image, channels, sides = len(shape) == 3, shape[0], list(shape[1:])
    function = spline_or_affine(univariate, bins, bound)
    levels: list[Transform] = []
    shapes: list[Any] = []  # (C, H, W) after each level
    for number in range(n_levels if image else 1):
        parts: list[Transform] = []
        if image and not any(side % 2 for side in sides):
            parts, channels, sides = [Squeeze()], 4 * channels, [side // 2 for side in sides]
        elif number:
            break
        if channels < 2:
            raise ZooError(
                f"model.transform=coupling: data of {'x'.join(map(str, shape))} have no two halves. Choose "
                "model/transform=autoregressive, or images with even sides."
            )
        for step in range(n_couplings):
            if act_norm:
                parts.append(ActNorm(channels))
            if mixing == "linear":
                parts.append(InvertibleLinear(channels))
            elif step:
                parts.append(Reverse())
            kept = channels // 2
            n_out = (channels - kept) * function.n_params
            parts.append(
                Coupling(channels, function, Conditioner(kept, n_out, image, n_classes, width, depth, dropout))
            )
        levels.append(Chain(parts))
        shapes.append((channels, *sides))
        channels //= 2
    return Multiscale(levels, shapes) if image else levels[0]
