"""Small transforms in float64 with random weights, and what each must satisfy."""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.flows.autoregressive import InverseAutoregressive, autoregressive
from zoo.nn.flows.base import ActNorm, InvertibleLinear, Reverse, Transform
from zoo.nn.flows.continuous import Continuous
from zoo.nn.flows.coupling import Squeeze, coupling
from zoo.nn.flows.tarflow import CausalBlock, TarFlow

SMALL = {"width": 8, "depth": 1}
SPLINE = {"univariate": "spline", "bins": 5, "bound": 1.5}
LINEAR = {"mixing": "linear", "act_norm": True}
TOKENS = TransformerConfig(8, 2, norm="layernorm", qk_norm=True)

PARTS: dict[str, tuple[Callable[[], Transform], tuple[int, ...]]] = {
    "reverse": (Reverse, (5,)),
    "squeeze": (Squeeze, (3, 4, 2)),
    "act_norm": (lambda: ActNorm(3), (3, 2, 2)),
    "linear": (lambda: InvertibleLinear(5), (5,)),
    "conv1x1": (lambda: InvertibleLinear(3), (3, 2, 3)),
    "causal_block": (lambda: CausalBlock(4, 3, 0, TOKENS, 1), (4, 3)),
    "realnvp": (lambda: coupling((5,), 0, n_couplings=3, **SMALL), (5,)),
    "realnvp_image": (lambda: coupling((1, 4, 4), 0, n_couplings=2, **SMALL), (1, 4, 4)),
    "realnvp_odd": (lambda: coupling((2, 3, 3), 0, n_couplings=2, **SMALL), (2, 3, 3)),
    "glow": (lambda: coupling((3, 4, 4), 0, n_couplings=2, **LINEAR, **SMALL), (3, 4, 4)),
    "nsf": (lambda: coupling((4,), 0, n_couplings=3, **SPLINE, **LINEAR, **SMALL), (4,)),
    "nsf_image": (lambda: coupling((1, 4, 4), 0, n_couplings=2, **SPLINE, **SMALL), (1, 4, 4)),
    "maf": (lambda: autoregressive((5,), 0, n_layers=3, **SMALL), (5,)),
    "maf_image": (lambda: autoregressive((1, 2, 3), 0, n_layers=2, **SPLINE, **SMALL), (1, 2, 3)),
    "maf_one": (lambda: autoregressive((1,), 0, n_layers=2, **SPLINE, **SMALL), (1,)),
    "iaf": (lambda: InverseAutoregressive((4,), 0, n_layers=2, **SMALL), (4,)),
    "continuous": (lambda: Continuous((3,), 0, steps=40, tolerance=1e-12, **SMALL), (3,)),
    "tarflow": (lambda: TarFlow((1, 4, 4), 0, n_blocks=3, n_layers=1, d_model=8), (1, 4, 4)),
}


def randomised(transform: Transform, scale: float = 0.3) -> Transform:
    """In float64, with weights far from the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in transform.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return transform.double().eval()


def build(name: str) -> Transform:
    """One of PARTS; images have smaller weights, because a random map of many values is nearly singular."""
    torch.manual_seed(0)
    make, shape = PARTS[name]
    return randomised(make(), 0.3 if len(shape) == 1 else 0.1)


def inputs(name: str, n: int = 3) -> Tensor:
    """Data (n, *shape)."""
    return torch.randn(n, *PARTS[name][1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Matrix (D, D) at one sample (*shape) by automatic differentiation."""
    found = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], x)
    return found.reshape(x.numel(), x.numel())


def numerical_jacobian(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """The same by central differences, from values alone."""
    shifts = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return ((function(x + shifts) - function(x - shifts)) / (2 * step)).flatten(1).mT


def check_inverse(transform: Transform, x: Tensor) -> None:
    """Both round trips are exact."""
    with torch.no_grad():
        z = transform(x)[0]
        torch.testing.assert_close(transform.inverse(z), x, rtol=0, atol=1e-10)
        noise = x.view(z.shape)
        torch.testing.assert_close(transform(transform.inverse(noise))[0], noise, rtol=0, atol=1e-10)


def check_log_det(transform: Transform, x: Tensor) -> None:
    """The log-determinant is that of autograd's Jacobian."""
    want = [torch.linalg.slogdet(jacobian(lambda v: transform(v)[0], row)).logabsdet for row in x]
    torch.testing.assert_close(transform(x)[1].detach(), torch.stack(want), rtol=0, atol=1e-10)


def check_inverse_alone(transform: Transform, x: Tensor) -> None:
    """The Jacobian of `inverse`, from its values, has minus the log-determinant of `forward`."""
    with torch.no_grad():
        for row in x.view(transform(x)[0].shape):
            numerical = torch.linalg.slogdet(numerical_jacobian(transform.inverse, row)).logabsdet
            claimed = transform(transform.inverse(row[None]))[1][0]
            torch.testing.assert_close(numerical, -claimed, rtol=0, atol=1e-5)
