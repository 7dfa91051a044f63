"""Couplings within a batch, against brute force over all assignments."""

import itertools

import torch

from zoo.nn.diffusion.coupling import Independent, OptimalTransport


def cost(x: torch.Tensor, noise: torch.Tensor) -> float:
    return (x - noise).square().sum().item()


def test_optimal_transport_is_the_cheapest_assignment() -> None:
    x, noise = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    paired = OptimalTransport().pair(x, noise, None)
    best = min(cost(x, noise[list(order)]) for order in itertools.permutations(range(6)))
    assert abs(cost(x, paired) - best) < 1e-4
    assert cost(x, noise) > best + 1e-3, "the control: the drawn order is not the best"
    assert sorted(paired[:, 0].tolist()) == sorted(noise[:, 0].tolist())
    assert torch.equal(Independent().pair(x, noise, None), noise)


def test_classes_keep_their_own_noise() -> None:
    """The noise that goes with a class is the one drawn for it, so that it stays standard normal given the class."""
    x, noise = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(1))
    x[:4] += 10
    y = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    paired = OptimalTransport().pair(x, noise, y)
    for label in (0, 1):
        assert sorted(paired[y == label, 0].tolist()) == sorted(noise[y == label, 0].tolist())
    across = OptimalTransport().pair(x, noise, None)
    assert sorted(across[y == 0, 0].tolist()) != sorted(noise[y == 0, 0].tolist()), "the control: without classes"


def test_mixed_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert OptimalTransport().pair(torch.randn(4, 2), torch.randn(4, 2), None).dtype == torch.float32
