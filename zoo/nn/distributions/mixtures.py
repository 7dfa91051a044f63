"""Mixtures: of Gaussians fitted to points, of Gaussians learned by gradient, and of independent pixels."""

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
        chosen = categorical_from_uniform(self.weights, choice)
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
        chosen = categorical_from_uniform(self.logits.softmax(0), choice)
        return self.means[chosen] + self.log_std.exp()[chosen] * noise


class PixelMixture(nn.Module):
    """A mixture of components that give each value its level independently of the others; part of the checkpoint.

    Before it is fitted, every level is as likely.

    Args:
        dim: values in one sample.
        levels: of each value.
        components: how many.
    """

    log_weights: Tensor  # (K,)
    log_probs: Tensor  # (levels, K, dim)

    def __init__(self, dim: int, levels: int, components: int) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("log_probs", torch.full((levels, components, dim), -math.log(levels)))

    def joint(self, x: Tensor) -> Tensor:
        """log p(component) p(x | component) of levels (B, dim): (B, K).

        A sum of products with the table of each level, beginning with all values at level 0.
        """
        base = self.log_probs[0]
        nats = (self.log_weights + base.sum(1)).repeat(len(x), 1)
        for level in range(1, len(self.log_probs)):
            nats = nats.addmm((x == level).to(base.dtype), (self.log_probs[level] - base).mT)
        return nats

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability of levels (B, dim), nats (B,)."""
        return self.joint(x).logsumexp(1)

    @torch.no_grad()
    def fit(
        self, x: Tensor, smoothing: float, steps: int, tolerance: float = 0.02, seed: int = 0, rows: int = 4096
    ) -> list[float]:
        """Expectation maximisation on levels (N, dim).

        The maximum is that of the likelihood times a Dirichlet prior: each component begins with `smoothing`
        observations of every value, spread evenly over the levels, and with as many samples. The start is the
        average of a random sample and the frequencies of all, for each component.

        Args:
            x: levels, of any integer type.
            smoothing: observations; greater than zero, so that nothing becomes impossible.
            steps: at most so many; one component needs none.
            tolerance: stop when a step gains less than this, in nats per sample.
            seed: of the start.
            rows: at a time.

        Returns:
            What is maximised, in nats per sample, before each step; it never falls.
        """
        n, levels, k = len(x), len(self.log_probs), len(self.log_weights)
        cell = torch.arange(x.shape[1], device=x.device) * levels  # of each value's level 0, in a table of counts
        counts = sum(torch.bincount((part + cell).flatten(), minlength=levels * len(cell)) for part in x.split(rows))
        start = counts.view(-1, levels).T[:, None].to(self.log_probs) / n  # type: ignore[union-attr]
        if k > 1:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(x.device)
            picked = x[order[torch.arange(k, device=x.device) % n]]  # (K, dim)
            start = (start + torch.stack([picked == level for level in range(levels)])) / 2
        self._take(n / k * start.expand_as(self.log_probs), torch.full_like(self.log_weights, n / k), smoothing)
        history: list[float] = []
        for _ in range(steps if k > 1 else 0):  # of one component that is the maximum already
            counts, sizes, nats = torch.zeros_like(self.log_probs), torch.zeros_like(self.log_weights), 0.0
            for part in x.split(rows):
                joint = self.joint(part)
                nats += joint.logsumexp(1).sum().item()
                share = joint.softmax(1).mT  # (K, B)
                sizes += share.sum(1)
                for level in range(1, levels):
                    counts[level].addmm_(share, (part == level).to(share))
            counts[0] = (sizes[:, None] - counts[1:].sum(0)).clamp(min=0)
            prior = smoothing * (self.log_weights.sum() + self.log_probs.sum() / levels).item()
            history.append((nats + prior) / n)
            self._take(counts, sizes, smoothing)
            if len(history) > 1 and history[-1] - history[-2] < tolerance:
                break
        return history

    def _take(self, counts: Tensor, sizes: Tensor, smoothing: float) -> None:
        self.log_weights.copy_(((sizes + smoothing) / (sizes + smoothing).sum()).log())
        self.log_probs.copy_(((counts + smoothing / len(counts)) / (sizes[:, None] + smoothing)).log())

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Levels (n, dim), int64; drawn on the CPU, so that a seed means the same on every device."""
        chosen = torch.multinomial(self.log_weights.exp().cpu(), n, replacement=True, generator=generator)
        uniform = torch.rand(n, self.log_probs.shape[2], generator=generator).to(self.log_probs)
        chosen, below, level = chosen.to(uniform.device), torch.zeros_like(uniform), torch.zeros_like(uniform).long()
        for table in self.log_probs[:-1]:  # by inverting the distribution function
            below += table[chosen].exp()
            level += uniform >= below
        return level


def random_numbers(n: int, dim: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """What `place` of a mixture takes: uniform numbers (n,) and normal ones (n, dim)."""
    return torch.rand(n, generator=generator), torch.randn(n, dim, generator=generator)


def categorical_from_uniform(weights: Tensor, choice: Tensor) -> Tensor:
    """Which of K components uniform numbers (B,) in [0, 1) choose: int64 (B,), never one of weight zero.

    By comparison and not by `torch.multinomial`, so that a sampler is a function of random numbers that can be
    handed to it from outside (see `zoo.nn.samplers.exportable`).
    """
    mass = weights.cumsum(0)  # in floating point u * total < total for every u below one
    return (mass[:-1] <= choice[:, None] * mass[-1]).sum(1)
