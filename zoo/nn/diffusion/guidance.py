"""Guidance: functions that wrap a denoiser.

Estimates are affine in the output of the network, so a combination with weights that sum to one is the same in every
target's space.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.nn.diffusion.path import Path
from zoo.nn.diffusion.sampler import Denoise


def guided(
    good: Denoise, bad: Denoise, weight: float, path: Path, interval: tuple[float, float] | None = None
) -> Denoise:
    """bad + weight (good - bad), inside an interval of the log-SNR.

    A conditional and an unconditional denoiser give classifier-free guidance (arXiv:2207.12598; its w is one less). A
    good and a worse model give autoguidance (arXiv:2406.02507). The interval is that of arXiv:2404.07724. A weight of 1
    is `good`.
    """
    if weight == 1:
        return good

    def denoise(z: Tensor, t: float, **jump: float) -> tuple[Tensor, Tensor]:
        x, e = good(z, t, **jump)
        if interval is not None and not interval[0] <= path.number(t).log_snr <= interval[1]:
            return x, e
        x_bad, e_bad = bad(z, t, **jump)
        return torch.lerp(x_bad, x, weight), torch.lerp(e_bad, e, weight)

    return denoise


def clipped(denoise: Denoise, path: Path, low: float, high: float) -> Denoise:
    """Clip the estimate of x, and compute that of the noise again: both always give z = a x + s e."""

    def inner(z: Tensor, t: float, **jump: float) -> tuple[Tensor, Tensor]:
        x, e = denoise(z, t, **jump)
        at, x = path.number(t), x.clamp(low, high)
        return x, (z - at.a * x) / at.s if at.s > 0 else e

    return inner


def posterior(
    denoise: Denoise,
    path: Path,
    y: Tensor,
    operator: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    std: float = 0.0,
    iterations: int = 1,
) -> Denoise:
    """The denoiser given a linear observation y = H x + std n: inpainting, super-resolution, colouring.

    x + C H^T (H C H^T + std^2)^-1 (y - H x), where C = (s^2 / a) dx/dz. For an exact denoiser C is the covariance of x
    given z (Boys et al. 2023, arXiv:2310.06721). Vector-Jacobian products apply C. Conjugate gradients solve for the
    inverse (Rozet et al. 2024, arXiv:2405.13712).

    Args:
        denoise: of the prior.
        path: of the denoiser.
        y: observation, (B, *observed).
        operator: H, linear, (B, *shape) -> (B, *observed).
        adjoint: its transpose, (B, *observed) -> (B, *shape).
        std: standard deviation of the observation's noise, in the units of z.
        iterations: of conjugate gradients.
    """

    def inner(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        at = path.number(t)
        if at.a <= 0 or at.s <= 0:
            return denoise(z, t)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x, _ = denoise(z, t)

        def covariance(v: Tensor) -> Tensor:  # the Jacobian of an exact denoiser is symmetric
            return at.s**2 / at.a * torch.autograd.grad(x, z, v, retain_graph=True)[0]

        def normal(v: Tensor) -> Tensor:
            return operator(covariance(adjoint(v))) + max(std, 1e-3) ** 2 * v

        x_hat = x.detach()
        correction = covariance(adjoint(conjugate_gradients(normal, y - operator(x_hat), iterations)))
        x_hat = x_hat + correction
        return x_hat, (z.detach() - at.a * x_hat) / at.s

    return inner


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve matrix(v) = b, row by row, for a symmetric positive definite matrix; b is (B, *shape)."""

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1).reshape(-1, *[1] * (u.ndim - 1))

    v, residual = torch.zeros_like(b), b
    direction, size = residual, dot(residual, residual)
    for _ in range(iterations):
        product = matrix(direction)
        curvature = dot(direction, product)
        usable = (curvature > 0) & (size > 1e-20)  # rows that are solved, or where the matrix is not positive, stop
        step = torch.where(usable, size / curvature.where(usable, torch.ones_like(curvature)), 0.0)
        v, residual = v + step * direction, residual - step * product
        new = dot(residual, residual)
        direction = residual + torch.where(size > 1e-20, new / size.clamp(min=1e-20), 0.0) * direction
        size = new
    return v
