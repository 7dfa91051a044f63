"""Mixture models: Gaussians fitted by EM or trained by gradient, and independent categorical pixels."""

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.samplers.noise import fork, normal

MAX_EM_STEPS = 30  # close to convergence, and fast enough to refit at every validation


class GaussianMixture(nn.Module):
    """Density over R^dim with full covariances, fitted by expectation maximisation; stored in the checkpoint.

    Args:
        dim: dimension of the points.
        components: maximum number; fewer where there are fewer points.
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
        """Whether `fit` was called, here or before the checkpoint was saved."""
        return bool(self.weights.sum() > 0)

    @torch.no_grad()
    def fit(self, points: Tensor, seed: int = 0) -> None:
        """Fit to points (N, dim) with scikit-learn; torch's random state does not change.

        The points are standardised first, so that the variance floor (0.001) is relative to each coordinate's variance.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as EM

        points = points.detach().double().cpu()
        points = points.repeat(2, 1) if len(points) == 1 else points  # scikit-learn needs two
        centre, scale = points.mean(0), points.std(0, correction=0).clamp(min=1e-6)
        k = min(len(self.weights), len(points))
        em = EM(k, reg_covar=1e-3, max_iter=MAX_EM_STEPS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose
            em.fit(((points - centre) / scale).numpy())
        factors = torch.linalg.cholesky(torch.from_numpy(em.covariances_))
        self.weights.zero_()
        self.weights[:k] = torch.from_numpy(em.weights_).to(self.weights)
        self.means[:k] = (torch.from_numpy(em.means_) * scale + centre).to(self.means)
        self.factors[:k] = (factors * scale[:, None]).to(self.factors)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of points (B, dim), nats (B,)."""
        offset = (z[:, None] - self.means).transpose(0, 1).mT  # (K, dim, B)
        whitened = torch.linalg.solve_triangular(self.factors, offset, upper=False)
        log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        nats = -0.5 * whitened.square().sum(1) - (log_det + 0.5 * z.shape[1] * math.log(2 * math.pi))[:, None]
        return torch.logsumexp(self.weights.log()[:, None] + nats, 0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample n points (n, dim); random numbers come from the CPU, so a seed gives equal results on all devices."""
        return self.transform(*(x.to(self.means) for x in mixture_noise(n, self.means.shape[1], generator)))

    def transform(self, choice: Tensor, noise: Tensor) -> Tensor:
        """Map uniform numbers (B,), which choose the component, and normal ones (B, dim) to points (B, dim)."""
        chosen = categorical_from_uniform(self.weights, choice)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)


class ClassMixtures(nn.Module):
    """One `GaussianMixture` for each class, fitted to points with labels.

    Args:
        dim: dimension of the points.
        components: maximum number in all mixtures together; each has at least one.
        n_classes: number of classes.
    """

    def __init__(self, dim: int, components: int, n_classes: int) -> None:
        super().__init__()
        each = max(components // n_classes, 1)
        self.mixtures = nn.ModuleList(GaussianMixture(dim, each) for _ in range(n_classes))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called."""
        return all(mixture.fitted for mixture in self.mixtures)

    def fit(self, labelled: Tensor) -> None:
        """Fit to points and their labels, in the last column (N, dim + 1); a class without points takes all points."""
        points, y = labelled[:, :-1], labelled[:, -1].long()
        for label, mixture in enumerate(self.mixtures):
            own = points[y == label]
            mixture.fit(own if len(own) else points)  # type: ignore[operator]

    def transform(self, choice: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        """Map uniform numbers (B,), normal ones (B, dim) and labels (B,) to points (B, dim) of these classes."""
        drawn = torch.stack([mixture.transform(choice, noise) for mixture in self.mixtures])  # type: ignore[operator]
        return drawn[y, torch.arange(len(y), device=y.device)]


class LearnedMixture(nn.Module):
    """Density over R^dim with diagonal covariances, trained by gradient with the surrounding model.

    Initial components have standard deviation `std` and means from a standard normal. They are far enough apart to
    specialise, and together at least as wide as the standard normal prior.
    """

    def __init__(self, dim: int, components: int, std: float = 0.5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, dim))
        self.log_std = nn.Parameter(torch.full((components, dim), math.log(std)))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of points (..., dim), nats (...)."""
        whitened = (z[..., None, :] - self.means) * torch.exp(-self.log_std)  # (..., K, dim)
        constant = F.log_softmax(self.logits, 0) - (self.log_std + 0.5 * math.log(2 * math.pi)).sum(1)  # (K,)
        return torch.logsumexp(constant - 0.5 * whitened.square().sum(-1), -1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample n points (n, dim); random numbers come from the CPU, so a seed gives equal results on all devices."""
        return self.transform(*(x.to(self.means) for x in mixture_noise(n, self.means.shape[1], generator)))

    def transform(self, choice: Tensor, noise: Tensor) -> Tensor:
        """Map uniform numbers (B,), which choose the component, and normal ones (B, dim) to points (B, dim)."""
        chosen = categorical_from_uniform(self.logits.softmax(0), choice)
        return self.means[chosen] + self.log_std.exp()[chosen] * noise


class PixelMixture(nn.Module):
    """Mixture of products of categorical distributions over levels; stored in the checkpoint.

    Uniform over the levels until fitted.

    Args:
        dim: values per sample.
        levels: distinct levels per value.
        components: number of components.
    """

    log_weights: Tensor  # (K,)
    log_probs: Tensor  # (levels, K, dim)

    def __init__(self, dim: int, levels: int, components: int) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("log_probs", torch.full((levels, components, dim), -math.log(levels)))

    def log_joint(self, x: Tensor) -> Tensor:
        """Return log p(component) + log p(x | component) of levels (B, dim): (B, K).

        Computed as a sum of matrix products, one per level, relative to all values at level 0.
        """
        base = self.log_probs[0]
        nats = (self.log_weights + base.sum(1)).repeat(len(x), 1)
        for level in range(1, len(self.log_probs)):
            nats = nats.addmm((x == level).to(base.dtype), (self.log_probs[level] - base).mT)
        return nats

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of levels (B, dim), nats (B,)."""
        return self.log_joint(x).logsumexp(1)

    @torch.no_grad()
    def fit(
        self, x: Tensor, smoothing: float, steps: int, tolerance: float = 0.02, seed: int = 0, rows: int = 4096
    ) -> list[float]:
        """Fit to levels (N, dim) by expectation maximisation.

        Maximises the likelihood times a Dirichlet prior of `smoothing` pseudo-observations per component: of every
        value, spread over the levels, and of samples. Each component is initialised to the mean of a random sample and
        the overall frequencies.

        Args:
            x: levels, of any integer type.
            smoothing: pseudo-observations; positive, so that every level keeps a positive probability.
            steps: maximum number of EM steps; one component needs none.
            tolerance: stop when a step gains less than this, in nats per sample.
            seed: seed of the initialisation.
            rows: samples per chunk.

        Returns:
            The objective in nats per sample before each step; it never decreases.
        """
        n, levels, k = len(x), len(self.log_probs), len(self.log_weights)
        first = (
            torch.arange(x.shape[1], device=x.device) * levels
        )  # (dim,): each value's level 0 in the table of counts
        counts = sum(torch.bincount((part + first).flatten(), minlength=levels * len(first)) for part in x.split(rows))
        start = counts.view(-1, levels).T[:, None].to(self.log_probs) / n  # type: ignore[union-attr]
        if k > 1:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(x.device)
            picked = x[order[torch.arange(k, device=x.device) % n]]  # (K, dim)
            start = (start + torch.stack([picked == level for level in range(levels)])) / 2
        self._m_step(n / k * start.expand_as(self.log_probs), torch.full_like(self.log_weights, n / k), smoothing)
        history: list[float] = []
        for _ in range(steps if k > 1 else 0):  # one component is at its maximum already
            counts, sizes, nats = torch.zeros_like(self.log_probs), torch.zeros_like(self.log_weights), 0.0
            for part in x.split(rows):
                log_joint = self.log_joint(part)
                nats += log_joint.logsumexp(1).sum().item()
                responsibility = log_joint.softmax(1).mT  # (K, B)
                sizes += responsibility.sum(1)
                for level in range(1, levels):
                    counts[level].addmm_(responsibility, (part == level).to(responsibility))
            counts[0] = (sizes[:, None] - counts[1:].sum(0)).clamp(min=0)
            prior = smoothing * (self.log_weights.sum() + self.log_probs.sum() / levels).item()
            history.append((nats + prior) / n)
            self._m_step(counts, sizes, smoothing)
            if len(history) > 1 and history[-1] - history[-2] < tolerance:
                break
        return history

    def _m_step(self, counts: Tensor, sizes: Tensor, smoothing: float) -> None:
        self.log_weights.copy_(((sizes + smoothing) / (sizes + smoothing).sum()).log())
        self.log_probs.copy_(((counts + smoothing / len(counts)) / (sizes[:, None] + smoothing)).log())

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample levels (n, dim), int64; random numbers come from the CPU, as for the other mixtures."""
        noise = fork(generator, "noise")
        chosen = categorical_from_uniform(self.log_weights.exp(), torch.rand(n, generator=generator).to(self.log_probs))
        uniform = torch.rand(n, self.log_probs.shape[2], generator=noise).to(self.log_probs)
        below, level = torch.zeros_like(uniform), torch.zeros_like(uniform).long()
        for table in self.log_probs[:-1]:  # invert the cumulative distribution
            below += table[chosen].exp()
            level += uniform >= below
        return level


def mixture_noise(n: int, dim: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Inputs for `transform` of a mixture: uniform numbers (n,) and normal ones (n, dim)."""
    noise = fork(generator, "noise")
    return torch.rand(n, generator=generator), normal(n, dim, generator=noise)


def categorical_from_uniform(weights: Tensor, choice: Tensor) -> Tensor:
    """Index for uniform numbers (B,) in [0, 1), by inverting the cumulative weights (K,) or (B, K): int64 (B,).

    Components of weight zero are never chosen. Unlike `torch.multinomial` this is a deterministic function of external
    random numbers, so it can be exported (see `zoo.nn.samplers.exportable`).
    """
    mass = weights.cumsum(-1)  # u * total < total in floating point for every u < 1
    return (mass[..., :-1] <= choice[:, None] * mass[..., -1:]).sum(1)
