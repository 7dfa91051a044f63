"""Gaussian mixtures: one that is fitted to points and kept in buffers, one that is learned by gradient."""

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EM_STEPS = 30  # the likelihood has all but settled by then, and a refit may happen at every validation


class GaussianMixture(nn.Module):
    """A density over R^dim with full covariances, fitted by expectation maximisation; part of the checkpoint.

    Args:
        dim: of the points.
        components: at most so many; fewer where there are fewer points.
    """

    weights: Tensor  # (K,), zero for components not in use; all zero before `fit`
    means: Tensor  # (K, dim)
    factors: Tensor  # (K, dim, dim) lower Cholesky factors of the covariances

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(components))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(components, 1, 1))

    @property
    def fitted(self) -> bool:
        """Has `fit` been called, here or before the checkpoint was saved?"""
        return bool(self.weights.sum() > 0)

    @torch.no_grad()
    def fit(self, points: Tensor, seed: int = 0) -> None:
        """Fit to points (N, dim) with scikit-learn; torch's random state is left alone.

        The points are standardised first, so that the floor of the variances (0.001 of each coordinate's own)
        means the same at every scale.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as EM

        points = points.detach().double().cpu()
        centre, scale = points.mean(0), points.std(0, correction=0).clamp(min=1e-6)
        k = min(len(self.weights), len(points))
        em = EM(k, reg_covar=1e-3, max_iter=EM_STEPS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose, see EM_STEPS
            em.fit(((points - centre) / scale).numpy())
        factors = torch.linalg.cholesky(torch.from_numpy(em.covariances_))
        self.weights.zero_()
        self.weights[:k] = torch.from_numpy(em.weights_).to(self.weights)
        self.means[:k] = (torch.from_numpy(em.means_) * scale + centre).to(self.means)
        self.factors[:k] = (factors * scale[:, None]).to(self.factors)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of points (B, dim), in nats, (B,)."""
        offset = (z[:, None] - self.means).transpose(0, 1).mT  # (K, dim, B)
        white = torch.linalg.solve_triangular(self.factors, offset, upper=False)
        log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        nats = -0.5 * white.square().sum(1) - (log_det + 0.5 * z.shape[1] * math.log(2 * math.pi))[:, None]
        return torch.logsumexp(self.weights.log()[:, None] + nats, 0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, dim); drawn on the CPU, so that a seed means the same on every device."""
        return self.place(*(x.to(self.means) for x in random_numbers(n, self.means.shape[1], generator)))

    def place(self, choice: Tensor, noise: Tensor) -> Tensor:
        """The points that uniform numbers (B,), which choose the component, and normal ones (B, dim) give."""
        chosen = component(self.weights, choice)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)


class LearnedMixture(nn.Module):
    """A density over R^dim with diagonal covariances whose parameters are trained with the model around it.

    It starts as normals of standard deviation `std` around points of a standard normal: apart enough to take
    up different parts of the data, together no narrower than the usual prior.
    """

    def __init__(self, dim: int, components: int, std: float = 0.5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, dim))
        self.log_std = nn.Parameter(torch.full((components, dim), math.log(std)))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of points (..., dim), in nats, (...)."""
        white = (z[..., None, :] - self.means) * torch.exp(-self.log_std)  # (..., K, dim)
        constant = F.log_softmax(self.logits, 0) - (self.log_std + 0.5 * math.log(2 * math.pi)).sum(1)  # (K,)
        return torch.logsumexp(constant - 0.5 * white.square().sum(-1), -1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, dim); drawn on the CPU, so that a seed means the same on every device."""
        return self.place(*(x.to(self.means) for x in random_numbers(n, self.means.shape[1], generator)))

    def place(self, choice: Tensor, noise: Tensor) -> Tensor:
        """The points that uniform numbers (B,), which choose the component, and normal ones (B, dim) give."""
        chosen = component(self.logits.softmax(0), choice)
        return self.means[chosen] + self.log_std.exp()[chosen] * noise


def random_numbers(n: int, dim: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """What `place` of a mixture takes: uniform numbers (n,) and normal ones (n, dim)."""
    return torch.rand(n, generator=generator), torch.randn(n, dim, generator=generator)


def component(weights: Tensor, choice: Tensor) -> Tensor:
    """Which of K components uniform numbers (B,) in [0, 1) choose: int64 (B,), never one of weight zero.

    By comparison and not by `torch.multinomial`, so that a sampler is a function of random numbers that can be
    handed to it from outside (see `zoo.nn.core`).
    """
    mass = weights.cumsum(0)  # in floating point u * total < total for every u below one
    return (mass[:-1] <= choice[:, None] * mass[-1]).sum(1)
