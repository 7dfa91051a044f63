"""Closed forms for data that are normal, or a mixture of normals: the oracles of the diffusion tests."""

import math

import torch
from torch import Tensor

from zoo.nn.diffusion.path import EDM, VE, Linear, Path, Trigonometric, VPCosine, VPLinear
from zoo.nn.diffusion.sampler import Denoise

PATHS: dict[str, Path] = {
    "linear": Linear(),
    "trigonometric": Trigonometric(),
    "vp_cosine": VPCosine(),
    "vp_linear": VPLinear(),
    "ve": VE(),
    "edm": EDM(),
}
MEAN = torch.tensor([0.3, -0.5], dtype=torch.float64)
VARIANCE = torch.tensor([0.2, 1.7], dtype=torch.float64).square()


def broadcast(path: Path, z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """a and s at one time, or at times (B,) for z (B, 2)."""
    at = path.at(torch.as_tensor(t, dtype=z.dtype).reshape(-1)).like(z)
    return at.a, at.s


def gaussian_denoiser(path: Path, mean: Tensor = MEAN, variance: Tensor = VARIANCE) -> Denoise:
    """E[x | z] = m + a V (z - a m) / (a^2 V + s^2), and the noise that goes with it."""

    def denoise(z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        a, s = broadcast(path, z, t)
        x = mean + a * variance * (z - a * mean) / (a**2 * variance + s**2)
        return x, s * (z - a * mean) / (a**2 * variance + s**2)

    return denoise


def gaussian_flow(path: Path, z: Tensor, begin: float, end: float) -> Tensor:
    """The exact solution of the probability-flow ODE from one time to another."""
    a, s = broadcast(path, z, begin)
    b, r = broadcast(path, z, end)
    return b * MEAN + ((b**2 * VARIANCE + r**2) / (a**2 * VARIANCE + s**2)).sqrt() * (z - a * MEAN)


def log_gaussian(x: Tensor) -> Tensor:
    return (-0.5 * (x - MEAN) ** 2 / VARIANCE - 0.5 * (2 * math.pi * VARIANCE).log()).sum(-1)


CENTRES = torch.tensor([[-1.0, 0.5], [0.8, 0.9], [0.2, -1.1]], dtype=torch.float64)
WIDTH = 0.3


def mixture_denoiser(path: Path) -> Denoise:
    """The exact denoiser of a mixture of three round normals of equal weight, by responsibilities."""

    def denoise(z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        a, s = broadcast(path, z, t)
        variance = a**2 * WIDTH**2 + s**2
        gap, total = z[:, None] - a[:, None] * CENTRES, variance[:, None]  # (B, 3, 2), (B or 1, 1, 1)
        weight = (-0.5 * gap.square() / total).sum(-1).softmax(-1)[..., None]
        x = (weight * (CENTRES + a[:, None] * WIDTH**2 * gap / total)).sum(1)
        return x, (z - a * x) / s

    return denoise


def log_mixture(x: Tensor) -> Tensor:
    gap = (x[:, None] - CENTRES).square().sum(-1)
    return (-0.5 * gap / WIDTH**2).logsumexp(-1) - math.log(3 * 2 * math.pi * WIDTH**2)
