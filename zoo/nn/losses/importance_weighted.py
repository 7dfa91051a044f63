"""Importance-weighted bounds and their gradients."""

import math

import torch
from torch import Tensor


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Logarithm of the mean weight over the first dimension (Burda et al. 2015, arXiv:1509.00519, equation 8)."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def square_weights_of_gradient(z: Tensor, log_weights: Tensor) -> None:
    """Multiply the gradient through z (k, B, D) by the normalised weights (k, B), in the backward pass.

    Where log q does not depend on the encoder but through z, the gradient of `log_mean_exp` is then the doubly
    reparameterised one (Tucker et al. 2018, arXiv:1810.04152, equation 8).
    """
    if z.requires_grad:
        shares = log_weights.detach().softmax(0)[..., None]
        z.register_hook(lambda gradient: gradient * shares)
