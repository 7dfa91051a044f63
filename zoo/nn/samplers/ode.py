"""Ordinary differential equations: Dormand-Prince with adaptive or equal steps, and the divergence of a field."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zoo.core.errors import ZooError

# The coefficients of Dormand & Prince (1980): order 5, with an embedded solution of order 4.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_SOLUTION = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SMALLEST = 1e-6  # step, as a share of the interval


def solve_ode(
    field: Callable[[Tensor, float], Tensor],
    z: Tensor,
    begin: float,
    end: float,
    tolerance: float = 1e-4,
    steps: int | None = None,
) -> Iterator[tuple[float, Tensor]]:
    """Solve dz/dt = field(z, t) by Dormand-Prince; yield (t, z) after each accepted step.

    Args:
        field: derivative (B, *shape) at the state (B, *shape) and a time.
        z: state at `begin`.
        begin: first time.
        end: last time, before or after.
        tolerance: of a step's error, absolute and relative, as the root of the mean square over the batch.
        steps: so many equal steps without an estimate of the error; rows do not depend on each other then.

    Raises:
        ZooError: a derivative that is not finite, or that needs too small a step.
    """
    t, h = begin, (end - begin) / (steps or 20)
    k = [field(z, t)]
    while abs(end - t) > 1e-9:
        h = min(h, end - t, key=abs)
        stages = [*k]
        for node, row in zip(_NODES, _STAGES, strict=True):
            stages.append(field(z + h * sum(c * s for c, s in zip(row, stages, strict=True)), t + node * h))
        new = z + h * sum(c * s for c, s in zip(_SOLUTION, stages, strict=True))
        if steps:
            t, z = t + h, new
            yield t, z
            k = [field(z, t)] if abs(end - t) > 1e-9 else []
            continue
        stages.append(field(new, t + h))
        scale = tolerance * (1 + torch.maximum(z.abs(), new.abs()))
        error = h * sum(c * s for c, s in zip(_ERROR, stages, strict=True)) / scale
        norm = float(error.detach().square().mean().sqrt())
        if norm <= 1:
            t, z, k = t + h, new, [stages[-1]]  # the last stage is the next step's first
            yield t, z
        elif not abs(h) > _SMALLEST * abs(end - begin) or norm != norm:
            raise ZooError(
                f"The ODE cannot be solved at t={t:.4g}: its derivative is not finite, or changes too fast. Train "
                "with a smaller model.optimizer.lr, or allow a larger tolerance."
            )
        h *= min(max(0.9 * (norm + 1e-12) ** -0.2, 0.2), 5.0)


def divergence(
    field: Callable[[Tensor], Tensor], z: Tensor, probe: Tensor | None, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """A field at z (B, *shape), and its divergence (B,): exact, or Hutchinson's estimate with a probe (B, *shape).

    Args:
        field: of states, row by row.
        z: states.
        probe: noise of mean 0 and covariance 1, such as random signs; None computes the exact divergence.
        differentiable: whether gradients flow from both results to the state and to the field's weights.
    """
    with torch.inference_mode(False), torch.enable_grad():
        if not differentiable:
            z = z.detach().clone().requires_grad_()
        elif not z.requires_grad:
            z = z.detach().requires_grad_()
        value = field(z)
        result = value if differentiable else value.detach()
        if probe is not None:
            (product,) = torch.autograd.grad(value, z, probe, create_graph=differentiable)
            return result, (product * probe).flatten(1).sum(1)
        total, columns = torch.zeros(len(z), dtype=z.dtype, device=z.device), value.flatten(1)
        for i in range(columns.shape[1]):
            (row,) = torch.autograd.grad(columns[:, i].sum(), z, retain_graph=True, create_graph=differentiable)
            total = total + row.flatten(1)[:, i]
        return result, total
