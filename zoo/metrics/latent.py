"""Latent-space metrics: active units, KL per dimension, match of aggregate posterior and prior."""

import torch
from torch import Tensor

from zoo.metrics.mmd import squared_mmd
from zoo.nn.distributions.normal import kl_to_standard

ACTIVE_VARIANCE = 0.01  # minimum variance of a posterior mean
KERNEL_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def active_units(means: Tensor) -> int:
    """Number of dimensions of posterior means (N, D) whose variance over data exceeds 0.01.

    Burda et al. 2015, 1509.00519, section 5.3. The threshold assumes a prior of variance one.
    """
    return int((means.double().var(dim=0) > ACTIVE_VARIANCE).sum())


def kl_per_dim(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) per dimension, averaged over data, nats, float64: (N, D) twice -> (D,)."""
    return kl_to_standard(mean.double(), log_std.double()).mean(0)


def aggregate_match(z: Tensor, prior_draws: Tensor) -> float:
    """Unbiased MMD^2 between latents of data (N, D) and prior samples (M, D): zero on average for equal distributions.

    The kernel is a sum of C / (C + |a - b|^2) with C = 2 D s for seven scales s from 0.1 to 10, between 0 and 7.
    Tolstikhin et al. 2017, 1711.01558, section 4, with the scales of the authors' code. It assumes a prior of variance
    about one, for which 2 D is the expected |a - b|^2.
    """
    base = 2 * z.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = torch.cdist(a, b).square()
        return sum((base * s / (squares + base * s) for s in KERNEL_SCALES), torch.zeros_like(squares))

    return squared_mmd(kernel, z, prior_draws)
