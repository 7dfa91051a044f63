"""Von Mises-Fisher distributions on the unit sphere of R^D: density, samples, KL to the uniform distribution.

The density is proportional to exp(kappa direction.z). Integrals over the sphere reduce to the angle from the direction.
Its weight is g(angle) = exp(kappa (cos angle - 1)) sin(angle)^(D - 2). Quadrature is nearly exact, with gradients, on
every device. torch does not have Bessel functions of all orders.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NODES = 128
ROUNDS = 32  # of rejection: each accepts two of three or more, so that all but 1e-15 of draws end
TINY = 1e-30


def quadrature(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and positive weights of Fejer's first rule on [0, 1], each (NODES,), made on the device of `like`."""
    angle = (torch.arange(NODES, dtype=like.dtype, device=like.device) + 0.5) * (math.pi / NODES)
    j = torch.arange(1, NODES // 2 + 1, dtype=like.dtype, device=like.device)
    series = ((2 * j * angle[:, None]).cos() / (4 * j.square() - 1)).sum(1)
    return (1 - angle.cos()) / 2, (1 - 2 * series) / NODES


def log_sphere_area(dim: int) -> float:
    """Logarithm of the surface area of the unit sphere of R^dim: log(2 pi^(dim / 2) / Gamma(dim / 2))."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def log_weight(angle: Tensor, kappa: Tensor, dim: int) -> Tensor:
    """log g, (...)."""
    return -2 * kappa * (angle / 2).sin().square() + (dim - 2) * angle.sin().clamp(min=TINY).log()


def largest_angle(kappa: Tensor, dim: int) -> Tensor:
    """An angle beyond which g is negligible in double precision, at most pi."""
    return ((4 * math.sqrt(dim - 2) + 20) * kappa.detach().rsqrt()).clamp(max=math.pi)


def nodes_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes between two angles, and logarithms of their weights: (...) -> (..., NODES)."""
    nodes, weights = quadrature(low)
    width = (high - low)[..., None]
    return low[..., None] + width * nodes, weights.log() + width.clamp(min=TINY).log()


def log_integral_and_mean(kappa: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """log of the integral of g over all angles, and the mean cosine A(kappa), each (...)."""
    angle, log_step = nodes_of(torch.zeros_like(kappa), largest_angle(kappa, dim))
    log_terms = log_step + log_weight(angle, kappa[..., None], dim)
    return log_terms.logsumexp(-1), (log_terms.softmax(-1) * angle.cos()).sum(-1)


def log_normaliser(kappa: Tensor, dim: int) -> Tensor:
    """log of the integral of exp(kappa direction.z) over the sphere, (...): the constant is minus this.

    It equals log((2 pi)^(dim / 2) I_(dim / 2 - 1)(kappa) / kappa^(dim / 2 - 1)), with a modified Bessel function.
    """
    return log_sphere_area(dim - 1) + kappa + log_integral_and_mean(kappa, dim)[0]


def log_von_mises_fisher(z: Tensor, direction: Tensor, kappa: Tensor) -> Tensor:
    """Log-density of unit vectors z (..., D), per unit of surface area, nats (...)."""
    return kappa * (z * direction).sum(-1) - log_normaliser(kappa, z.shape[-1])


def kl_to_uniform(kappa: Tensor, dim: int) -> Tensor:
    """KL to the uniform distribution on the sphere, nats (...): kappa A - log normaliser + log area."""
    log_integral, mean = log_integral_and_mean(kappa, dim)
    return kappa * (mean - 1) - log_integral - log_sphere_area(dim - 1) + log_sphere_area(dim)


def sample_von_mises_fisher(direction: Tensor, kappa: Tensor) -> Tensor:
    """One draw for each direction (..., D) and concentration (...), with gradients to both.

    Wood 1994 (Communications in Statistics 23) draws the cosine to the direction by rejection. Its gradient is
    implicit: the probability below the cosine stays the same (Figurnov et al. 2018, arXiv:1805.08498, equation 5).
    """
    cosine = _with_gradient(_cosine(kappa.detach(), direction.shape[-1]), kappa, direction.shape[-1])[..., None]
    noise = torch.randn_like(direction)
    across = F.normalize(noise - (noise * direction).sum(-1, keepdim=True) * direction, dim=-1)
    return cosine * direction + (1 - cosine.square()).clamp(min=TINY).sqrt() * across


def _cosine(kappa: Tensor, dim: int) -> Tensor:
    """Cosine of a draw to its direction, (...), without gradients."""
    rest = dim - 1
    b = rest / (2 * kappa + (4 * kappa.square() + rest**2).sqrt())
    x0 = (1 - b) / (1 + b)
    bound = kappa * x0 + rest * torch.log1p(-x0.square())
    normal = torch.randn(ROUNDS, *kappa.shape, dim, dtype=kappa.dtype, device=kappa.device)
    share = (1 + F.normalize(normal, dim=-1)[..., 0]) / 2  # Beta(rest / 2, rest / 2)
    proposals = (1 - (1 + b) * share) / (1 - (1 - b) * share)  # (ROUNDS, ...)
    log_ratio = kappa * proposals + rest * torch.log1p(-x0 * proposals) - bound
    accepted = log_ratio >= torch.rand_like(log_ratio).log()
    first = accepted.to(torch.uint8).argmax(0, keepdim=True)  # loops that wait for all would stall a GPU
    cosine = proposals.gather(0, first)[0]
    return cosine.clamp(-1 + 1e-7, 1 - 1e-7)


def _with_gradient(cosine: Tensor, kappa: Tensor, dim: int) -> Tensor:
    """The cosine, with the implicit gradient d cosine / d kappa = (integral of (t - A) f(t) from cosine to 1) / f."""
    if not kappa.requires_grad:
        return cosine
    with torch.no_grad():
        angle, mean = cosine.acos(), log_integral_and_mean(kappa, dim)[1]
        end = torch.maximum(largest_angle(kappa, dim), angle)
        inner = cosine > mean  # integrate over the smaller side, where nothing cancels
        low, high = torch.where(inner, 0.0, angle), torch.where(inner, angle, end)
        nodes, log_step = nodes_of(low, high)
        log_ratio = log_weight(nodes, kappa[..., None], dim) - log_weight(angle, kappa, dim)[..., None]
        integral = ((log_step + log_ratio).exp() * (nodes.cos() - mean[..., None])).sum(-1)
        slope = torch.where(inner, 1.0, -1.0) * angle.sin() * integral
    return cosine + slope * (kappa - kappa.detach())
