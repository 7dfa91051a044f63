"""Normal distributions with a diagonal covariance."""

import math

import torch
from torch import Tensor


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(z; mean, std^2 I), summed over the last dimension, nats."""
    whitened = (z - mean) * torch.exp(-log_std)
    return (-0.5 * whitened.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def kl_to_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) per dimension, nats."""
    return 0.5 * (mean.square() + torch.expm1(2 * log_std)) - log_std
