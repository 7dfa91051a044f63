"""Families of q(z | x) whose parameters an encoder predicts.

    family = GaussianPosterior(dim)
    z, log_q = family.sample(params, k)    # (B, family.n_params) -> (k, B, dim), (k, B)

Samples carry gradients to the parameters. Log-densities are in nats.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Depth, PositiveInt
from zoo.nn.distributions.likelihoods import at_least_float32, soft_clamp
from zoo.nn.distributions.normal import kl_to_standard, log_normal
from zoo.nn.distributions.von_mises_fisher import kl_to_uniform, log_von_mises_fisher, sample_von_mises_fisher
from zoo.nn.flows.autoregressive import MADE, MaskedAutoregressive
from zoo.nn.flows.base import Chain, Reverse, Transform
from zoo.nn.flows.univariate import Affine

LOG_STD_BOUND = 6.0  # |log std|
MIN_KAPPA = 1e-3  # of a von Mises-Fisher distribution: nearly uniform

Support = Literal["real", "sphere"]  # all vectors, or those of length one


class Posterior(nn.Module):
    """Base class of a family of distributions over R^dim, or over its unit sphere.

    Args:
        dim: size of z.

    Attributes:
        n_params: numbers that the encoder predicts.
        support: where z lies.
        closed_kl: whether `kl` is defined.
        normal: whether it is a normal distribution with independent dimensions; it then has `mean_and_log_std`.
        noise: number of normal values that `transform` maps to one draw; None where draws need other noise.
    """

    n_params: int
    support: Support = "real"
    closed_kl: bool = False
    normal: bool = False
    noise: int | None = None
    registered_name: str

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def sample(self, params: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """k draws for each row of parameters (B, n_params), and their log-densities: (k, B, dim) and (k, B)."""
        raise NotImplementedError

    def transform(self, params: Tensor, noise: Tensor) -> Tensor:
        """Normal noise (B, noise) to one draw for each row of parameters (B, n_params): (B, dim)."""
        raise NotImplementedError

    def log_prob(self, z: Tensor, params: Tensor) -> Tensor:
        """Log-density at z (..., dim) for parameters (..., n_params); both broadcast."""
        raise NotImplementedError

    def mean(self, params: Tensor) -> Tensor:
        """One point that represents the distribution, (B, dim)."""
        raise NotImplementedError

    def kl(self, params: Tensor) -> Tensor:
        """Closed-form KL to the standard prior of the support, in parts that add up: (B, parts)."""
        raise NotImplementedError


@register("posterior", "gaussian")
class GaussianPosterior(Posterior):
    """N(mean, diag(std^2)) (Kingma & Welling 2013, arXiv:1312.6114)."""

    closed_kl = True
    normal = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.n_params, self.noise = 2 * dim, dim

    def mean_and_log_std(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (..., n_params) -> mean and log standard deviation, each (..., dim)."""
        mean, raw = at_least_float32(params[..., : 2 * self.dim]).chunk(2, dim=-1)
        return mean, soft_clamp(raw, LOG_STD_BOUND)

    def sample(self, params: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Posterior.sample`."""
        mean, log_std = self.mean_and_log_std(params)
        z = mean + log_std.exp() * torch.randn(k, *mean.shape, device=mean.device, dtype=mean.dtype)
        return z, log_normal(z, mean, log_std)

    def transform(self, params: Tensor, noise: Tensor) -> Tensor:
        """See `Posterior.transform`."""
        mean, log_std = self.mean_and_log_std(params)
        return mean + log_std.exp() * noise

    def log_prob(self, z: Tensor, params: Tensor) -> Tensor:
        """See `Posterior.log_prob`."""
        return log_normal(z, *self.mean_and_log_std(params))

    def mean(self, params: Tensor) -> Tensor:
        """Its mean."""
        return self.mean_and_log_std(params)[0]

    def kl(self, params: Tensor) -> Tensor:
        """KL to N(0, I) per dimension, (B, dim)."""
        return kl_to_standard(*self.mean_and_log_std(params))


@register("posterior", "iaf")
class IAFPosterior(GaussianPosterior):
    """Inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934): a Gaussian, then autoregressive maps.

    Every map has one masked network, which reads the values so far and a context of x. Samples with their densities
    take one pass. The density at another point takes `dim` passes for each map.

    Args:
        dim: size of z.
        n_layers: autoregressive maps.
        context: features of x that the networks read.
        width: units per hidden layer of the networks.
        depth: hidden layers of each.
    """

    closed_kl = False
    normal = False

    def __init__(
        self,
        dim: int,
        *,
        n_layers: PositiveInt = 2,
        context: PositiveInt = 32,
        width: PositiveInt = 128,
        depth: Depth = 1,
    ) -> None:
        super().__init__(dim)
        self.n_params = 2 * dim + context
        parts: list[Transform] = []
        for _ in range(n_layers):
            made = MADE(dim, Affine.n_params, 0, width, depth, 0.0, n_context=context)
            parts += [MaskedAutoregressive(Affine(), made), Reverse()]
        self.flow = Chain(parts)

    def sample(self, params: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Posterior.sample`."""
        start, log_start = super().sample(params, k)
        context = at_least_float32(params[..., 2 * self.dim :]).expand(k, -1, -1).flatten(0, 1)
        z, log_det = self.flow(start.flatten(0, 1), context)
        return z.view(start.shape), log_start - log_det.view(log_start.shape)

    def transform(self, params: Tensor, noise: Tensor) -> Tensor:
        """See `Posterior.transform`."""
        return self.flow(super().transform(params, noise), at_least_float32(params[..., 2 * self.dim :]))[0]

    def log_prob(self, z: Tensor, params: Tensor) -> Tensor:
        """See `Posterior.log_prob`."""
        shape = torch.broadcast_shapes(z.shape[:-1], params.shape[:-1])
        points = z.expand(*shape, -1).reshape(-1, self.dim)
        rows = params.expand(*shape, -1).reshape(-1, self.n_params)
        context = at_least_float32(rows[:, 2 * self.dim :])
        start = self.flow.inverse(points, context)
        return (super().log_prob(start, rows) - self.flow(start, context)[1]).view(shape)

    def mean(self, params: Tensor) -> Tensor:
        """The point that the mean of the Gaussian is mapped to."""
        return self.flow(super().mean(params), at_least_float32(params[..., 2 * self.dim :]))[0]


@register("posterior", "vmf")
class VonMisesFisherPosterior(Posterior):
    """Von Mises-Fisher distribution on the unit sphere (Davidson et al. 2018, arXiv:1804.00891).

    Its standard prior is the uniform distribution on the sphere, which does not pull the codes to a centre.
    """

    support: Support = "sphere"
    closed_kl = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.n_params = dim + 1

    def direction_and_kappa(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (..., n_params) -> mean direction (..., dim) and concentration (...)."""
        params = at_least_float32(params)
        return F.normalize(params[..., :-1], dim=-1), F.softplus(params[..., -1]) + MIN_KAPPA

    def sample(self, params: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Posterior.sample`."""
        direction, kappa = self.direction_and_kappa(params)
        z = sample_von_mises_fisher(direction.expand(k, -1, -1), kappa.expand(k, -1))
        return z, log_von_mises_fisher(z, direction, kappa)

    def log_prob(self, z: Tensor, params: Tensor) -> Tensor:
        """See `Posterior.log_prob`: by surface area of the sphere."""
        return log_von_mises_fisher(z, *self.direction_and_kappa(params))

    def mean(self, params: Tensor) -> Tensor:
        """The mean direction."""
        return self.direction_and_kappa(params)[0]

    def kl(self, params: Tensor) -> Tensor:
        """KL to the uniform distribution on the sphere, (B, 1)."""
        return kl_to_uniform(self.direction_and_kappa(params)[1], self.dim)[..., None]
