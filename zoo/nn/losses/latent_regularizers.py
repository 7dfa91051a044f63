"""Penalties on the latents of a variational autoencoder, beside the KL of its bound.

    penalty = TotalCorrelation(family, prior, dim)
    terms = penalty(z, params)     # "penalty" is added to the loss; the others are logged

z is one draw from q(z | x) for each row of a batch (B, dim), and params the parameters of q (B, n_params).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Depth, NonNegative, Positive, PositiveInt
from zoo.nn.distributions.posteriors import GaussianPosterior, Posterior
from zoo.nn.distributions.priors import Prior
from zoo.nn.networks.gan_heads import frozen_params
from zoo.nn.networks.mlp import mlp

KERNEL_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Regularizer(nn.Module):
    """Base class: no penalty.

    Args:
        dim: size of z.
        family: of the posterior.
        prior: of the model.

    Attributes:
        lr: learning rate of own weights; None is that of the networks.
    """

    lr: float | None = None
    registered_name: str

    def __init__(self, dim: int, family: Posterior, prior: Prior) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor, params: Tensor) -> dict[str, Tensor]:
        """Terms by name, averaged over the batch."""
        raise NotImplementedError

    def set_size(self, n_data: int) -> None:
        """Receive the size of the training set. Default: no-op."""

    def require_normal(self, family: Posterior) -> GaussianPosterior:
        """The family, if it is the independent normal one.

        Raises:
            ConfigError: another family.
        """
        if not isinstance(family, GaussianPosterior) or not family.normal:
            raise ConfigError(
                f"model.regularizer={self.registered_name}: needs the density of each latent alone. Choose "
                "model/posterior=gaussian."
            )
        return family


@register("regularizer", "none")
class NoRegularizer(Regularizer):
    """No penalty: the bound alone."""

    def forward(self, z: Tensor, params: Tensor) -> dict[str, Tensor]:
        """No terms."""
        return {}


@register("regularizer", "tc")
class TotalCorrelation(Regularizer):
    """Total correlation of the latents, estimated in the batch: beta-TC-VAE (Chen et al. 2018, arXiv:1802.04942).

    The KL of the bound is mutual information + total correlation + divergence of each dimension. With weight w, this
    is their beta = 1 + w.

    Args:
        dim: size of z.
        family: of the posterior.
        prior: of the model.
        weight: of the total correlation, beyond the one in the KL.
    """

    n_data: Tensor

    def __init__(self, dim: int, family: Posterior, prior: Prior, *, weight: NonNegative = 5.0) -> None:
        super().__init__(dim, family, prior)
        self.family, self.weight = self.require_normal(family), weight
        self.register_buffer("n_data", torch.tensor(0))

    def set_size(self, n_data: int) -> None:
        """Store the size of the training set."""
        self.n_data.fill_(n_data)

    def forward(self, z: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The estimate `total_correlation`."""
        mean, log_std = self.family.mean_and_log_std(params)
        joint, marginals = log_aggregate(z, mean, log_std, self.n_data)
        total = (joint - marginals).mean()
        return {"penalty": self.weight * total, "total_correlation": total}


@register("regularizer", "factor")
class FactorRegularizer(Regularizer):
    """Total correlation by a discriminator: FactorVAE (Kim & Mnih 2018, arXiv:1802.05983).

    The discriminator separates latents from latents whose dimensions are shuffled over the batch. Its logit estimates
    the logarithm of their density ratio. Its own loss has no effect on the value of the penalty.

    Args:
        dim: size of z.
        family: of the posterior.
        prior: of the model.
        weight: of the total correlation.
        width: units per hidden layer of the discriminator.
        depth: hidden layers.
        discriminator_lr: learning rate of the discriminator.
    """

    def __init__(
        self,
        dim: int,
        family: Posterior,
        prior: Prior,
        *,
        weight: NonNegative = 10.0,
        width: PositiveInt = 256,
        depth: Depth = 3,
        discriminator_lr: Positive = 1e-3,
    ) -> None:
        super().__init__(dim, family, prior)
        self.weight, self.lr = weight, discriminator_lr
        self.discriminator = mlp([dim, *[width] * depth, 1], "leaky_relu", "none", spectral_norm=False)

    def forward(self, z: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The estimate `total_correlation`, and the loss of the discriminator."""
        with frozen_params(self.discriminator):
            total = self.discriminator(z).mean()
        own = z.detach()
        real, shuffled = self.discriminator(own), self.discriminator(shuffle_dimensions(own))
        loss = 0.5 * (F.softplus(-real) + F.softplus(shuffled)).mean()
        penalty = self.weight * total + loss - loss.detach()
        return {"penalty": penalty, "total_correlation": total, "loss_discriminator": loss.detach()}


@register("regularizer", "dip")
class DIPRegularizer(Regularizer):
    """Covariance of the latents towards the identity: DIP-VAE (Kumar et al. 2017, arXiv:1711.00848, section 3).

    Args:
        dim: size of z.
        family: of the posterior.
        prior: of the model.
        variant: "i", the covariance of the posterior means; "ii", of the latents, with the mean posterior variance.
        weight: of squared covariances of different dimensions.
        diagonal_weight: of squared differences of the variances from 1. The paper has ten times `weight` for "i".
    """

    def __init__(
        self,
        dim: int,
        family: Posterior,
        prior: Prior,
        *,
        variant: Literal["i", "ii"] = "ii",
        weight: NonNegative = 10.0,
        diagonal_weight: NonNegative = 10.0,
    ) -> None:
        super().__init__(dim, family, prior)
        self.family, self.variant = self.require_normal(family), variant
        self.weight, self.diagonal_weight = weight, diagonal_weight

    def forward(self, z: Tensor, params: Tensor) -> dict[str, Tensor]:
        """Sums of squares `covariance` and `variance`."""
        mean, log_std = self.family.mean_and_log_std(params)
        covariance = torch.cov(mean.mT, correction=0).view(self.dim, self.dim)
        if self.variant == "ii":
            covariance = covariance + (2 * log_std).exp().mean(0).diag()
        variances = covariance.diagonal()
        across, along = covariance.square().sum() - variances.square().sum(), (variances - 1).square().sum()
        penalty = self.weight * across + self.diagonal_weight * along
        return {"penalty": penalty, "covariance": across, "variance": along}


@register("regularizer", "mmd")
class MMDRegularizer(Regularizer):
    """Distance of the latents of a batch from the prior: WAE-MMD (1711.01558), InfoVAE (Zhao et al. 2017, 1706.02262).

    The distance is an unbiased estimate of MMD^2. With beta = 0, the loss is that of a Wasserstein autoencoder. With
    beta = 1 - a, it is InfoVAE's, whose weight is a + lambda - 1.

    Args:
        dim: size of z.
        family: of the posterior.
        prior: of the model.
        weight: of MMD^2.
        kernel: "imq", a sum of inverse multiquadratics at seven scales, or "rbf", exp(-|a - b|^2 / 2 dim).

    Raises:
        ConfigError: a prior that is trained.
    """

    def __init__(
        self,
        dim: int,
        family: Posterior,
        prior: Prior,
        *,
        weight: NonNegative = 100.0,
        kernel: Literal["imq", "rbf"] = "imq",
    ) -> None:
        super().__init__(dim, family, prior)
        if not prior.standard:
            raise ConfigError(
                f"model.regularizer=mmd: latents are compared with a fixed prior, not {prior.registered_name}. Choose "
                "model/prior=standard or model/prior=fitted."
            )
        self.weight, self.kernel, self.on_sphere = weight, kernel, prior.support == "sphere"

    def forward(self, z: Tensor, params: Tensor) -> dict[str, Tensor]:
        """The estimate `mmd`; zero for a batch of one."""
        draws = torch.randn_like(z)
        distance = squared_mmd(z, F.normalize(draws, dim=1) if self.on_sphere else draws, self.kernel)
        return {"penalty": self.weight * distance, "mmd": distance}


def log_aggregate(z: Tensor, mean: Tensor, log_std: Tensor, n_data: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate log q(z) and the sum of log q(z_d) over dimensions, of the posterior averaged over the data: (B,) twice.

    Row i of z is drawn from the posterior of row i, which has the weight 1 / N among the N data. The other rows of
    the batch stand for the other N - 1: each has (N - 1) / (N (B - 1)). Densities are then unbiased over batches that
    contain row i (stratified sampling: Chen et al. 2018, appendix C.1).

    Args:
        z: draws (B, D).
        mean: of the posteriors (B, D).
        log_std: of the posteriors (B, D).
        n_data: N, a scalar; at least B is used.
    """
    whitened = (z[:, None] - mean) * (-log_std).exp()  # (B, B, D): row of z, row of the posterior, dimension
    log_q = -0.5 * whitened.square() - log_std - 0.5 * math.log(2 * math.pi)
    b, n = len(z), n_data.to(z).clamp(min=len(z))
    others = ((n - 1) / (n * max(b - 1, 1))).log().expand(b, b)
    log_weight = torch.where(torch.eye(b, dtype=torch.bool, device=z.device), -n.log(), others)
    joint = (log_weight + log_q.sum(-1)).logsumexp(1)
    return joint, (log_weight[..., None] + log_q).logsumexp(1).sum(-1)


def shuffle_dimensions(z: Tensor) -> Tensor:
    """Permute each dimension over the rows of (B, D) on its own (Kim & Mnih 2018, algorithm 1)."""
    return z.gather(0, torch.rand(z.shape, device=z.device).argsort(0))


def squared_mmd(x: Tensor, y: Tensor, kernel: Literal["imq", "rbf"]) -> Tensor:
    """Unbiased MMD^2 of x and y, each (B, D), differentiable (Gretton et al. 2012, equation 3); 0 for one row."""
    b = len(x)
    if b < 2:
        return x.sum() * 0.0

    def values(a: Tensor, c: Tensor) -> Tensor:
        squares = (a[:, None] - c).square().sum(-1)  # (B, B)
        base = 2.0 * a.shape[1]
        if kernel == "rbf":
            return (-squares / base).exp()
        return sum((base * s / (base * s + squares) for s in KERNEL_SCALES), torch.zeros_like(squares))

    def within(a: Tensor) -> Tensor:
        table: Any = values(a, a)
        return (table.sum() - table.diagonal().sum()) / (b * (b - 1))

    return within(x) + within(y) - 2 * values(x, y).mean()
