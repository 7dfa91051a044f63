"""What an encoder does with its latent space: which dimensions are in use, and whether the prior is met."""

import torch
from torch import Tensor

from zoo.metrics.mmd import squared_mmd
from zoo.nn.distributions.normal import kl_to_standard

ACTIVE = 0.01  # variance over data of the posterior mean of a dimension in use
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def active_units(means: Tensor) -> int:
    """Dimensions whose posterior mean varies over data by more than 0.01, of means (N, D).

    Burda et al. 2015, 1509.00519, section 5.3. Variance has the unit of z squared: the threshold is meant for
    a prior of variance one.
    """
    return int((means.double().var(dim=0) > ACTIVE).sum())


def kl_per_dim(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of each dimension averaged over data, nats, float64, (N, D) twice -> (D,)."""
    return kl_to_standard(mean.double(), log_std.double()).mean(0)


def aggregate_match(z: Tensor, prior_draws: Tensor) -> float:
    """Unbiased MMD^2 of latents of data (N, D) and draws from the prior (M, D): 0 on average where they match.

    The kernel is a sum of C / (C + |a - b|^2) with C = 2 D s for seven scales s from 0.1 to 10, so between 0
    and 7 (Tolstikhin et al. 2017, 1711.01558, section 4; the scales are those of the authors' code). 2 D is the
    expected |a - b|^2 of draws from a standard normal prior: the kernel is meant for priors of variance about one.
    """
    base = 2 * z.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = torch.cdist(a, b).square()
        return sum((base * s / (squares + base * s) for s in SCALES), torch.zeros_like(squares))

    return squared_mmd(kernel, z, prior_draws)
