"""Probabilistic PCA."""

import math

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spec import DataSpec
from zoo.models.baselines.base import Density, check_dim
from zoo.nn.samplers.noise import fork

PCA_DIM = 8192  # most values: there is one covariance matrix


@register("model", "ppca")
class PPCA(Density):
    """Probabilistic PCA: x = W z + mean + noise with z ~ N(0, I), at the maximum of its likelihood in closed form.

    Before fitting, the model is a standard normal.

    Args:
        spec: what the data looks like; at most 8,192 values.
        latent_dim: size of z; at most one less than the data has values.

    Raises:
        ZooError: data of too many values.
    """

    paper = "Tipping & Bishop 1999 (JRSS B 61)"
    mean: Tensor  # (D,)
    weight: Tensor  # (D, latent_dim)
    variance: Tensor  # () of the noise

    def __init__(self, spec: DataSpec, *, latent_dim: PositiveInt = 16) -> None:
        super().__init__(spec)
        check_dim(self, PCA_DIM)
        self.register_buffer("mean", torch.zeros(spec.size))
        self.register_buffer("weight", torch.zeros(spec.size, min(latent_dim, spec.size - 1)))
        self.register_buffer("variance", torch.ones(()))

    def fit(self, data: Tensor) -> None:
        """Equations 7 and 8 of the paper, in double precision."""
        mean, covariance = data.mean(0, dtype=torch.float64), torch.zeros(data.shape[1], data.shape[1]).double()
        for part in data.split(4096):
            offset = part.double() - mean
            covariance += offset.T @ offset / len(data)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        rest = data.shape[1] - self.weight.shape[1]
        variance = values[:rest].mean().clamp(min=1e-6)
        top, directions = values[rest:].flip(0), vectors[:, rest:].flip(1)
        self.mean.copy_(mean)
        self.weight.copy_(directions * (top - variance).clamp(min=0).sqrt())
        self.variance.copy_(variance)

    def _infer(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x - mean (B, D), the mean of z given x (B, latent_dim), and M = W'W + variance I."""
        with torch.autocast(x.device.type, enabled=False):
            offset = x.flatten(1).to(self.mean.dtype) - self.mean
            inner = self.weight.mT @ self.weight
            inner = inner + self.variance * torch.eye(len(inner), device=inner.device, dtype=inner.dtype)
            return offset, torch.linalg.solve(inner, (offset @ self.weight).mT).mT, inner

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log density, nats (B,): inverse and determinant of W W' + variance I by those of M."""
        offset, z, inner = self._infer(x)
        with torch.autocast(x.device.type, enabled=False):
            residual = offset - z @ self.weight.mT  # offset' C^-1 offset = offset' (offset - W z) / variance
            mahalanobis = (offset * residual).sum(1) / self.variance
            spare = self.spec.size - len(inner)
            log_det = spare * self.variance.log() + torch.linalg.slogdet(inner).logabsdet
            return -0.5 * (mahalanobis + log_det + self.spec.size * math.log(2 * math.pi))

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: bool = True,
    ) -> Tensor:
        """Draws (n, *shape), or without `noise` the means of p(x | z); clamped to [0, 1] for images."""
        self.check_condition(condition)
        values = fork(generator, "values")
        x = self.randn(n, self.weight.shape[1], generator=generator) @ self.weight.mT + self.mean
        if noise:
            x = x + self.variance.sqrt() * self.randn(n, self.spec.size, generator=values)
        return self.shaped(x)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of z given x, (B, latent_dim)."""
        return self._infer(x)[1]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of x given z."""
        return self.shaped(z @ self.weight.mT + self.mean)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of x given the mean of z."""
        return self.decode(self.encode(x))

    def interpolate(
        self, n: int, steps: int, *, generator: torch.Generator | None = None, between: Tensor | None = None
    ) -> Tensor:
        """n interpolations between draws of z or between data (2 n, *shape): (n, steps, *shape).

        Between draws, cos t z0 + sin t z1 stays standard normal. Between data, paths are straight.
        """
        t = torch.linspace(0, 1, steps, device=self.device)[:, None]
        if between is not None:
            start, end = self.encode(between)[:, None].chunk(2)
            return self.decode(torch.lerp(start, end, t).flatten(0, 1)).unflatten(0, (n, steps))
        start, end = self.randn(2 * n, 1, self.weight.shape[1], generator=generator).chunk(2)  # (n, 1, latent_dim)
        z = (t * math.pi / 2).cos() * start + (t * math.pi / 2).sin() * end
        return self.decode(z.flatten(0, 1)).unflatten(0, (n, steps))
