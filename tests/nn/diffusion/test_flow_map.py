"""Identities of flow maps, on the exact one of a normal distribution; derivatives, against finite differences."""

import pytest
import torch
from torch import Tensor, nn

from tests.nn.diffusion.gaussian import MEAN, PATHS, VARIANCE, broadcast, gaussian_denoiser
from zoo.nn.diffusion.flow_map import (
    FlowMapSampler,
    derivative,
    eulerian,
    lagrangian,
    mean_velocity_error,
    progressive,
)
from zoo.nn.diffusion.path import Path
from zoo.nn.diffusion.sampler import velocity
from zoo.nn.networks.dit import DiT
from zoo.nn.networks.unet import UNet

NAMES = ["linear", "trigonometric", "vp_cosine", "edm"]


def exact_jump(path: Path, z: Tensor, t: Tensor, r: Tensor, variance: Tensor = VARIANCE) -> Tensor:
    """X_{t->r}(z) of N(MEAN, variance)."""
    (a, s), (b, w) = broadcast(path, z, t), broadcast(path, z, r)
    return b * MEAN + ((b**2 * variance + w**2) / (a**2 * variance + s**2)).sqrt() * (z - a * MEAN)


def exact_velocity(path: Path, z: Tensor, t: Tensor) -> Tensor:
    return velocity(*gaussian_denoiser(path)(z, t), path.at(t).like(z))


def case(path: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States and three falling times, each (50, ...)."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(50, 3, generator=generator, dtype=torch.float64).sort(1, descending=True).values
    t, q, r = (path.first + (path.last - path.first) * (0.01 + 0.98 * u)).unbind(1)
    a, s = broadcast(path, torch.zeros(50, 2, dtype=torch.float64), t)
    noise = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    return a * MEAN + (a**2 * VARIANCE + s**2).sqrt() * noise, t, q, r


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_flow_map_meets_the_three_identities(name: str) -> None:
    path = PATHS[name]
    z, t, q, r = case(path)
    jump = lambda z, t, r: exact_jump(path, z, t, r)  # noqa: E731
    field = lambda z, t: exact_velocity(path, z, t)  # noqa: E731
    scale = jump(z, t, r).abs().max() + field(z, t).abs().max()
    zero = torch.zeros_like(z)
    close = {"rtol": 0, "atol": 1e-10 * scale.item()}
    torch.testing.assert_close(eulerian(jump, z, t, r, field(z, t)), zero, **close)
    torch.testing.assert_close(lagrangian(jump, field, z, t, r), zero, **close)
    torch.testing.assert_close(progressive(jump, z, t, r, q), jump(z, t, r), **close)
    torch.testing.assert_close(jump(z, t, t), z, **close)

    off = lambda z, t, r: jump(z, t, r) + 0.1 * (t - r)[:, None]  # noqa: E731
    assert eulerian(off, z, t, r, field(z, t)).abs().mean() > 0.05, "the control: a map that is off"
    assert lagrangian(off, field, z, t, r).abs().mean() > 0.05
    assert (progressive(off, z, t, r, q) - off(z, t, r)).abs().mean() > 1e-3
    assert eulerian(jump, z, t, r, 1.1 * field(z, t)).abs().mean() > 0.05, "the control: another tangent"


@pytest.mark.parametrize("name", NAMES)
def test_a_jump_is_made_of_two_estimates(name: str) -> None:
    """The change of the velocity that moves a jump's end: solved for the estimates of x and e, it does so."""
    path = PATHS[name]
    z, t, _, r = case(path)
    at, to = path.at(t).like(z), path.at(r).like(z)
    x, goal = torch.randn(2, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    end = to.a * x + to.s * (z - at.a * x) / at.s
    change = mean_velocity_error(end, goal, at, to)
    moved = x - at.s / at.wronskian * change  # the velocity is s'/s z - W/s x
    torch.testing.assert_close(to.a * moved + to.s * (z - at.a * moved) / at.s, goal, rtol=1e-9, atol=1e-9)
    if name == "linear":
        torch.testing.assert_close(change, (end - goal) / (t - r)[:, None])


def attention_networks() -> list[nn.Module]:
    networks = [DiT((1, 8, 8), 1, 0, 2, d_model=16, n_layers=1, n_heads=1), UNet((1, 8, 8), 1, 0, 2, width=8)]
    for network in networks:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return [network.double() for network in networks]


@pytest.mark.parametrize("network", attention_networks(), ids=lambda n: type(n).__name__)
def test_forward_derivatives_of_networks_with_attention(network: nn.Module) -> None:
    """They equal finite differences, and so does the gradient of a loss that contains one."""
    generator = torch.Generator().manual_seed(0)
    z, tangent = torch.randn(2, 2, 1, 8, 8, dtype=torch.float64, generator=generator)
    level = torch.tensor([[0.3, 0.2], [-0.5, 0.1]], dtype=torch.float64)
    turn = torch.ones_like(level)
    value, found = derivative(network, (z, level), (tangent, turn))
    h = 1e-5
    expected = (network(z + h * tangent, level + h * turn) - network(z - h * tangent, level - h * turn)) / (2 * h)
    torch.testing.assert_close(value, network(z, level))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if isinstance(network, DiT):
        with pytest.raises(NotImplementedError):  # the control: with the default kernel
            torch.func.jvp(network, (z, level), (tangent, turn))

    weight = network.stem.weight
    loss = lambda: derivative(network, (z, level), (tangent, turn))[1].square().mean()  # noqa: E731
    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        index = (0,) * weight.ndim
        weight[index] += h
        up = loss()
        weight[index] -= 2 * h
        down = loss()
        weight[index] += h
    assert gradient[index].item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-4)


def test_autocast_does_not_reach_the_derivative() -> None:
    network = attention_networks()[0].float()
    z, level = torch.randn(2, 1, 8, 8), torch.rand(2, 2)
    given = (z, level), (torch.ones_like(z), torch.ones_like(level))
    exact = derivative(network, *given)[1]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(derivative(network, *given)[1], exact)
        assert network(z, level).dtype == torch.bfloat16, "the control: the network itself"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 3])
def test_samples_of_the_exact_map(name: str, steps: int) -> None:
    """Any number of jumps ends where the ODE does. With new noise after each jump, they keep the distribution."""
    path = PATHS[name]

    def denoise(z: Tensor, t: float, to: float) -> tuple[Tensor, Tensor]:
        at, end = path.number(t), path.number(to)
        wide = torch.full((len(z),), t, dtype=z.dtype), torch.full((len(z),), to, dtype=z.dtype)
        x = (exact_jump(path, z, *wide) - end.s / at.s * z) / (end.a - end.s * at.a / at.s)
        return x, (z - at.a * x) / at.s

    last, first = path.number(path.last), path.number(path.first)
    noise = torch.randn(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = last.a * MEAN + (last.a**2 * VARIANCE + last.s**2).sqrt() * noise
    sampler = FlowMapSampler(steps=steps)
    *_, (found, _) = sampler.run(denoise, z, path, sampler.plan(path), lambda: noise)
    wide = torch.full((20_000,), path.last, dtype=z.dtype), torch.full((20_000,), path.first, dtype=z.dtype)
    torch.testing.assert_close(found, exact_jump(path, z, *wide), rtol=0, atol=6 * first.s + 1e-9)
    sampler = FlowMapSampler(steps=steps, renoise=True)
    randn = lambda: torch.randn(20_000, 2, dtype=torch.float64)  # noqa: E731
    torch.manual_seed(1)
    *_, (found, _) = sampler.run(denoise, z, path, sampler.plan(path), randn)
    torch.testing.assert_close(found.mean(0), MEAN, rtol=0, atol=0.05)
    torch.testing.assert_close(found.std(0), VARIANCE.sqrt(), rtol=0.03, atol=0)
