"""The fully connected denoiser reads waves of few values."""

import math

import pytest
import torch

from zoo.nn.networks.denoiser_mlp import MLPDenoiser, Waves


def test_waves_are_octaves_of_each_value() -> None:
    x = torch.tensor([[0.5, -1.0]])
    found = Waves(2)(x)
    angles = [math.pi / 4 * 0.5, math.pi / 2 * 0.5, -math.pi / 4, -math.pi / 2]
    want = [0.5, -1.0, *map(math.sin, angles), *map(math.cos, angles)]
    assert found[0].tolist() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(("shape", "inputs"), [((2,), 2 * 13), ((8,), 8 * 13), ((9,), 9), ((1, 8, 8), 64)])
def test_only_samples_of_few_values_are_read_as_waves(shape: tuple[int, ...], inputs: int) -> None:
    net = MLPDenoiser(shape, 1, 0, width=16, depth=1)
    assert net.stem.in_features == inputs
    assert net(torch.randn(3, *shape), torch.rand(3)).shape == (3, *shape)


def test_narrow_stripes_are_learned_from_waves() -> None:
    """The same 200 steps on stripes of width 1/8: the error without waves is the control."""
    errors = []
    for n_waves in (6, 0):
        torch.manual_seed(0)
        net = MLPDenoiser((2,), 1, 0, width=64, depth=2, n_waves=n_waves)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(200):
            x = 2 * torch.rand(256, 2) - 1
            error = (net(x, torch.zeros(256)) - (8 * math.pi * x).sin()).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        errors.append(error.item())
    assert errors[0] < 0.1 < 0.4 < errors[1], errors
