"""Linear observations y = H x of data, for `zoo.nn.diffusion.guidance.posterior`, and the classic RePaint.

The rows of H for resolution and colour sum to one. Standardising x by one mean and deviation then standardises y too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.diffusion.path import Path, Point
from zoo.nn.diffusion.sampler import Denoise, Run, Sampler

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Observation:
    """A linear map H with orthogonal rows of one length, and its transpose.

    Args:
        forward: (B, *shape) -> (B, *observed).
        adjoint: (B, *observed) -> (B, *shape).
        gain: squared length of the rows, H H^T = gain I (on what H gives).
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    gain: float = 1.0

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """The nearest data to x (B, *shape) whose observation is y (B, *observed)."""
        return x + self.adjoint(y - self.forward(x)) / self.gain


def known_values(known: Tensor) -> Observation:
    """The values where `known` (B or 1, *shape) is 1, and zero elsewhere: inpainting."""
    return Observation(lambda v: v * known, lambda v: v * known)


def average_pool(factor: int) -> Observation:
    """Means of factor x factor pixels, (B, C, H, W) -> (B, C, H / factor, W / factor): super-resolution."""

    def spread(v: Tensor) -> Tensor:
        return v.repeat_interleave(factor, -2).repeat_interleave(factor, -1) / factor**2

    return Observation(lambda v: F.avg_pool2d(v, factor), spread, 1 / factor**2)


def luma() -> Observation:
    """Brightness of a colour image, (B, 3, H, W) -> (B, 1, H, W): colouring."""

    def weights(v: Tensor) -> Tensor:
        return torch.tensor(LUMA, dtype=v.dtype, device=v.device).view(3, 1, 1)

    gain = sum(w**2 for w in LUMA)
    return Observation(lambda v: (v * weights(v)).sum(1, keepdim=True), lambda v: v * weights(v), gain)


@dataclass(frozen=True, kw_only=True)
class RePaint(Sampler):
    """RePaint (Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1, jumps of 1): the steps of another sampler.

    After each step, the data with the noise of the time replace the known part of the state. Noise takes it one step
    back, and the step is done again. One round has a bias that more steps do not cure. Many rounds bring the mean near
    to that of the posterior, with too little variance.

    Args:
        inner: sampler of the steps, each without memory of earlier ones.
        x: data (B, *shape), in the units of z.
        known: where they are given (B or 1, *shape), bool.
        rounds: of each step; the paper has 10.
    """

    inner: Sampler
    x: Tensor
    known: Tensor
    rounds: int

    def run(
        self, denoise: Denoise, z: Tensor, path: Path, plan: Sequence[Point], randn: Callable[[], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Sampler`."""
        for at, to in pairwise(plan):
            last = to.t <= path.first
            a, s = (1.0, 0.0) if last else (to.a, to.s)
            for turn in range(self.rounds):
                x, e = denoise(z, at.t)
                state = x if last else self.inner.step(z, x, e, at, to, Run(denoise, randn))
                state = torch.where(self.known, self.x if last else a * self.x + s * randn(), state)
                if turn + 1 < self.rounds:
                    z = at.a / a * state + math.sqrt(at.s**2 - (at.a * s / a) ** 2) * randn()
            z = state
            yield z, x
