"""Normal distributions with a diagonal covariance."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(z; mean, std^2 I), summed over the last dimension, nats."""
    whitened = (z - mean) * torch.exp(-log_std)
    return (-0.5 * whitened.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def kl_to_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) per dimension, nats."""
    return 0.5 * (mean.square() + torch.expm1(2 * log_std)) - log_std


def truncate(z: Tensor, limit: float) -> Tensor:
    """Standard normal numbers -> those of a normal law that is cut at -limit and limit, in the same order.

    The distribution functions are equated, so no number is drawn again.
    """
    wide = z.double()
    inner = math.erf(limit / math.sqrt(2))  # probability between the limits
    u = torch.erf(wide / math.sqrt(2)) * inner  # from -inner to inner
    return (math.sqrt(2) * torch.erfinv(u)).clamp(-limit, limit).to(z.dtype)


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Turn the direction of (n, 1, D) to that of another at constant speed, and interpolate the norm: (n, steps, D).

    With opposite directions of other norms, weights on the vectors themselves would grow without bound.
    """
    norms = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)  # (n, 1, 1)
    angle = F.cosine_similarity(start, end, dim=-1).clamp(-1 + 1e-6, 1 - 1e-6)[..., None].acos()
    a, b = torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()  # (n, steps, 1)
    return torch.lerp(*norms, t) * (a * start / norms[0] + b * end / norms[1])
