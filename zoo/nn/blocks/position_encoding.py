"""Position encodings: added to embeddings (learned, sinusoidal), rotary, or added to scores (ALiBi, relative)."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PositionEncoding = Literal["learned", "sinusoidal", "rotary", "learned_rotary", "alibi", "relative"]

NUM_BUCKETS, MAX_DISTANCE = 32, 128  # of relative positions, as in T5


def sinusoidal(length: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """sin and cos of position / 10000^(2i / size), interleaved: (length, size) (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(torch.arange(0, size, 2, dtype=dtype) * (-math.log(10000.0) / size))
    angle = torch.arange(length)[:, None] * rate  # (length, ceil(size / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :size]


def rotary_rates(d_head: int, theta: float = 10000.0) -> Tensor:
    """Angles per position theta^(-2i / d_head), (d_head / 2,) (Su et al. 2021, 2104.09864)."""
    return torch.exp(torch.arange(0, d_head, 2, dtype=torch.float32) * (-math.log(theta) / d_head))


def rotary_angles(length: int, rates: Tensor) -> Tensor:
    """Angles of all positions, (length, D / 2), by those per position (D / 2,)."""
    return torch.arange(length)[:, None] * rates


def grid_angles(rows: int, columns: int, d_head: int) -> Tensor:
    """Rotary angles of a grid, (rows * columns, d_head / 2): half of them turn with the row, half with the column.

    Heads of fewer than four channels do not turn.
    """
    quarter = d_head // 4
    if not quarter:
        return torch.zeros(rows * columns, d_head // 2)
    row, column = (rotary_angles(n, rotary_rates(2 * quarter, theta=100.0)) for n in (rows, columns))
    grid = torch.cat(
        [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=-1
    )  # (rows, columns, 2 * quarter)
    return F.pad(grid.flatten(0, 1), (0, d_head // 2 - 2 * quarter))


class Rotation(NamedTuple):
    """Cosines and sines of rotary angles, (T, R / 2), or (B, 1, T, R / 2) if positions differ between rows."""

    cos: Tensor
    sin: Tensor


def rotation(angles: Tensor, factor: float = 1.0) -> Rotation:
    """Cosines and sines of angles, times a factor: computed once for all layers."""
    cos, sin = angles.cos(), angles.sin()
    return Rotation(cos, sin) if factor == 1 else Rotation(cos * factor, sin * factor)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate the pairs (x_i, x_{i + R/2}) of the first R channels, so that q.k depends on relative position only.

    Args:
        x: (B, H, T, D), R <= D.
        by: see `rotation`.
    """
    if (rotary := 2 * by.cos.shape[-1]) < x.shape[-1]:
        return torch.cat([rotate(x[..., :rotary], by), x[..., rotary:]], dim=-1)
    cos, sin = by.cos.to(x.dtype), by.sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def alibi_slopes(n_heads: int) -> Tensor:
    """Slope of the distance penalty of each head, (H,): a geometric series (ALiBi, Press et al. 2021, 2108.12409).

    If n_heads is not a power of two: the series of the power below, then every other slope of the power above.
    """
    below = 2 ** math.floor(math.log2(n_heads))
    series = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    between = [2 ** (-8 * (i + 1) / (2 * below)) for i in range(0, 2 * below, 2)]
    return torch.tensor((series + between)[:n_heads], dtype=torch.float32)


def relative_bucket(distance: Tensor, causal: bool) -> Tensor:
    """Bucket of a signed distance (key - query): exact for exact ones, logarithmic for far ones.

    Raffel et al. 2020 (1910.10683, section 2.1). Without `causal`, half of the buckets are for later keys.
    """
    buckets, offset = NUM_BUCKETS, torch.zeros_like(distance)
    if causal:
        magnitude = (-distance).clamp(min=0)
    else:
        buckets //= 2
        offset, magnitude = (distance > 0) * buckets, distance.abs()
    exact = buckets // 2
    times = magnitude.clamp(min=1).float() / exact
    far = exact + (times.log() / math.log(MAX_DISTANCE / exact) * (buckets - exact)).long()
    return offset + torch.where(magnitude < exact, magnitude, far.clamp(max=buckets - 1))
