"""Continuous normalizing flows: FFJORD."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Depth, Positive, PositiveInt
from zoo.nn.diffusion.likelihood import EXACT_DIVERGENCE
from zoo.nn.flows.base import Transform
from zoo.nn.flows.coupling import Conditioner
from zoo.nn.samplers.ode import divergence, solve_ode

EXACT_IN_TRAINING = 3  # the same while gradients are needed


class Field(nn.Module):
    """dz/dt at states (B, *shape) and a time, zero at first: the time is one more channel of a residual network.

    Args:
        shape: of one sample.
        n_classes: 0 ignores labels.
        width: feature maps or units.
        depth: residual blocks.
    """

    def __init__(self, shape: Sequence[int], n_classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.network = Conditioner(shape[0] + 1, shape[0], len(shape) == 3, n_classes, width, depth, 0.0)

    def forward(self, z: Tensor, t: float, y: Tensor | None) -> Tensor:
        """(B, *shape), time, labels (B,) -> (B, *shape)."""
        with torch.autocast(z.device.type, enabled=False):  # a solver needs a smooth field
            return self.network(torch.cat([z, torch.full_like(z[:, :1], 2 * t - 1)], 1), y)


@register("transform", "continuous")
class Continuous(Transform):
    """Continuous normalizing flow, FFJORD (Grathwohl et al. 2018, 1810.01367): dz/dt = f(z, t) from data to noise.

    log |det dz/dx| is the integral of the divergence of f. The network f is free; only the solver has to be exact. It
    takes equal steps in training and for samples. For likelihoods its steps meet a tolerance. Above 3 dimensions in
    training, and above 16 elsewhere, the divergence is Hutchinson's unbiased estimate. Its random signs stay the same
    along a solution.

    Args:
        shape: of one sample.
        n_classes: 0 ignores labels.
        width: units of the network, or feature maps; None is 64 or 24.
        depth: its residual blocks.
        steps: of the solver of order 5, with six evaluations each.
        tolerance: of likelihoods; see `zoo.nn.samplers.ode.solve_ode`.
    """

    likelihood_suffix = "_ode"

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        width: PositiveInt | None = None,
        depth: Depth = 2,
        steps: PositiveInt = 4,
        tolerance: Positive = 1e-4,
    ) -> None:
        super().__init__()
        width = width or (24 if len(shape) == 3 else 64)
        self.field, self.steps, self.tolerance = Field(shape, n_classes, width, depth), steps, tolerance
        size = torch.Size(shape).numel()
        self.exact_in_training, self.exact = size <= EXACT_IN_TRAINING, size <= EXACT_DIVERGENCE

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        trained = torch.is_grad_enabled()
        exact = self.exact_in_training if trained else self.exact
        with torch.inference_mode(False):
            x, y = x.clone(), None if y is None else y.clone()
            probe = None if exact else torch.randint_like(x, 2) * 2 - 1  # (B, *shape)

            def slope(state: Tensor, t: float) -> Tensor:  # (B, D + 1): z, and the integral of the divergence
                z = state[:, :-1].view(x.shape)
                value, div = divergence(lambda z: self.field(z, t, y), z, probe, differentiable=trained)
                return torch.cat([value.flatten(1), div[:, None]], 1)

            start = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)
            *_, (_, state) = solve_ode(slope, start, 0.0, 1.0, self.tolerance, self.steps if self.training else None)
        return state[:, :-1].view(x.shape), state[:, -1]

    def solve(self, state: Tensor, y: Tensor | None, begin: float, end: float) -> Tensor:
        """The state (B, *shape) at another time, by equal steps."""
        *_, (_, state) = solve_ode(lambda z, t: self.field(z, t, y), state, begin, end, steps=self.steps)
        return state

    def latents(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.latents`."""
        return self.solve(x, y, 0.0, 1.0)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        return self.solve(z, y, 1.0, 0.0)
