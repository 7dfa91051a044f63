"""How a token knows its place: added to the embedding, turned into queries and keys, or added to their products."""

import math
from typing import Literal

import torch
from torch import Tensor

PositionEncoding = Literal["learned", "sinusoidal", "rotary", "learned_rotary", "alibi", "relative"]

BUCKETS, FARTHEST = 32, 128  # of `relative`: distances that are told apart, and the first of those that are not (T5's)


def sinusoidal(length: int, size: int) -> Tensor:
    """sin and cos of position / 10000^(2i / size), interleaved: (length, size) (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angle = torch.arange(length)[:, None] * rate  # (length, ceil(size / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :size]


def rotary_angles(length: int, d_head: int, theta: float = 10000.0) -> Tensor:
    """Angles position * theta^(-2i / d_head): (length, d_head / 2) (Su et al. 2021, 2104.09864)."""
    rate = torch.exp(torch.arange(0, d_head, 2) * (-math.log(theta) / d_head))
    return torch.arange(length)[:, None] * rate


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pair (x_i, x_{i + D/2}) by its angle, so that q.k depends on the distance of their positions alone.

    x is (B, H, T, D); angles are (T, D / 2), or (B, 1, T, D / 2) where rows stand at different positions.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def alibi_slopes(n_heads: int) -> Tensor:
    """How fast each head forgets, (H,): the geometric series of Press et al. 2021 (2108.12409).

    For a number of heads that is no power of two: that of the power below, then every other one of the power above.
    """
    below = 2 ** math.floor(math.log2(n_heads))
    series = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    between = [2 ** (-8 * (i + 1) / (2 * below)) for i in range(0, 2 * below, 2)]
    return torch.tensor((series + between)[:n_heads])


def relative_bucket(distance: Tensor, causal: bool) -> Tensor:
    """The class of a signed distance (key - query): one each for near ones, logarithmic for far ones.

    Raffel et al. 2020 (1910.10683, section 2.1). Looking both ways, half of the buckets are for what comes after.
    """
    buckets, offset = BUCKETS, torch.zeros_like(distance)
    if causal:
        away = (-distance).clamp(min=0)
    else:
        buckets //= 2
        offset, away = (distance > 0) * buckets, distance.abs()
    near = buckets // 2
    far = near + ((away.clamp(min=1) / near).log() / math.log(FARTHEST / near) * (buckets - near)).long()
    return offset + torch.where(away < near, away, far.clamp(max=buckets - 1))
