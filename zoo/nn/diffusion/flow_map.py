"""Flow maps: jumps X_{t->r}(z) along the probability-flow ODE from time t to an earlier time r.

A network of two times gives estimates (x, e) for a jump, and X_{t->r}(z) = a(r) x + s(r) e. At r = t they are those of
a denoiser. On the linear path X = z - (t - r) u, where u is the network's mean velocity. Three identities characterise
the map (Boffi et al. 2025, arXiv:2505.18825); each is zero for the exact one. Functions here give their residuals.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.nn.diffusion.path import Path, Point
from zoo.nn.diffusion.sampler import Denoise, Sampler

Jump = Callable[[Tensor, Tensor, Tensor], Tensor]  # z (B, *shape), times (B,), earlier times (B,) -> (B, *shape)


def derivative(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Value and directional derivative of a function, each (B, *shape), by forward differentiation.

    Fused attention kernels have no forward derivative, so attention uses the math kernel here. There is no autocast:
    the derivative of a network in bfloat16 is wrong by several per cent.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.autocast(inputs[0].device.type, enabled=False):
        value, slope = torch.func.jvp(function, tuple(inputs), tuple(tangents))  # type: ignore[misc]
    return value, slope


@torch.no_grad()
def eulerian(jump: Jump, z: Tensor, t: Tensor, r: Tensor, tangent: Tensor) -> Tensor:
    """d/dt X_{t->r}(z_t) = 0 along dz/dt = v: (B, *shape) at a tangent v (Geng et al. 2025, arXiv:2505.13447)."""
    return derivative(lambda z, t: jump(z, t, r), (z, t), (tangent, torch.ones_like(t)))[1]


def lagrangian(jump: Jump, field: Callable[[Tensor, Tensor], Tensor], z: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """d/dr X_{t->r}(z) - v(X_{t->r}(z), r), (B, *shape); the gradient passes through the first term only."""
    end, slope = derivative(lambda r: jump(z, t, r), (r,), (torch.ones_like(r),))
    with torch.no_grad():
        velocity = field(end, r)
    return slope - velocity


@torch.no_grad()
def progressive(jump: Jump, z: Tensor, t: Tensor, r: Tensor, between: Tensor) -> Tensor:
    """X_{q->r}(X_{t->q}(z)) at a time q between: where the jump from t to r ends, (B, *shape).

    Shortcut models (Frans et al. 2024, arXiv:2410.12557), SplitMeanFlow (arXiv:2507.16884).
    """
    return jump(jump(z, t, between), between, r)


def mean_velocity_error(end: Tensor, goal: Tensor, at: Point, to: Point) -> Tensor:
    """Change of the velocity a' x + s' e (B, *shape) that moves the end of a jump to its goal, at a given z.

    On the linear path it is (end - goal) / (t - r).
    """
    return at.wronskian / (to.a * at.s - at.a * to.s).clamp(min=1e-6) * (end - goal)


@register("sampler", "flow_map")
@dataclass(frozen=True, kw_only=True)
class FlowMapSampler(Sampler):
    """Jumps of a flow map, one evaluation each; with a model of one time it is DDIM.

    Args:
        renoise: jump to the data each time, and add new noise for the next jump, as consistency models do (Song et al.
            2023, arXiv:2303.01469, algorithm 1).
    """

    steps: PositiveInt = 1
    renoise: bool = False

    @property
    def stochastic(self) -> bool:
        """With new noise."""
        return self.renoise

    def run(
        self, denoise: Denoise, z: Tensor, path: Path, plan: Sequence[Point], randn: Callable[[], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Sampler`."""
        for at, to in pairwise(plan):
            x, e = denoise(z, at.t, to=path.first if self.renoise else to.t)
            e = randn() if self.renoise and to.t > path.first else e
            z = x if to.t <= path.first else to.a * x + to.s * e
            yield z, x
