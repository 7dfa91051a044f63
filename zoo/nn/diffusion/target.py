"""Prediction targets. Each is p x + q e, and one 2x2 solve turns a network's output into estimates of x and e.

A point of the path is `z = a x + s e`. An output `o` gives `x = (q z - s o) / det` and `e = (a o - p z) / det`. Here
`det = a q - s p`. Velocity, score, samplers and likelihoods need these estimates alone. For any output,
`|o - target|^2 = (det / s)^2 |x_hat - x|^2 = (det / a)^2 |e_hat - e|^2`.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.nn.diffusion.path import Point

# x: the data. eps: the noise (Ho et al. 2020). velocity: dz/dt of the path (Lipman et al. 2022). v: a e - s x (Salimans
# & Ho 2022). score: the gradient of log p(z), -e / s (Song et al. 2020). edm: preconditioned (Karras et al. 2022).
Target = Literal["x", "eps", "velocity", "v", "score", "edm"]
TARGETS: tuple[Target, ...] = get_args(Target)


def coefficients(target: Target, point: Point) -> tuple[Tensor, Tensor]:
    """(p, q) of target = p x + q e, for data of variance one."""
    _, a, s, da, ds = point
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    if target == "x":
        return one, zero
    if target == "eps":
        return zero, one
    if target == "velocity":
        return da, ds
    if target == "v":
        return -s, a
    if target == "score":
        return zero, -1 / s
    norm = (a**2 + s**2).sqrt()  # c_skip = a / norm^2, c_out = s / norm
    return s / norm, -a / norm


def determinant(target: Target, point: Point) -> Tensor:
    """det = a q - s p."""
    p, q = coefficients(target, point)
    return point.a * q - point.s * p


def solve(output: Tensor, z: Tensor, point: Point, target: Target) -> tuple[Tensor, Tensor]:
    """A network's output at z -> estimates of the data x and the noise e, each (B, *shape)."""
    p, q = coefficients(target, point)
    det = point.a * q - point.s * p
    return (q * z - point.s * output) / det, (point.a * output - p * z) / det


def input_scale(point: Point) -> Tensor:
    """Factor that gives z variance one, for data of variance one."""
    return (point.a**2 + point.s**2).rsqrt()
