"""Dropout by 16 bits a number has torch's distribution, and its gradient."""

import pytest
import torch

from zoo.nn.kernels.cpu_dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shares_and_means(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 400_003  # no multiple of four
    y = dropout(torch.ones(n, dtype=dtype), p).double()
    error = 4 * (p * (1 - p) / n) ** 0.5
    assert abs((y == 0).double().mean().item() - p) < error
    assert y[y > 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4 if dtype == torch.float32 else 1e-2)
    rows = (y[: n // 1000 * 1000].view(-1, 1000) == 0).double().mean(0)  # each place as often as another
    assert (rows - p).abs().max() < 5 * (p * (1 - p) / (n // 1000)) ** 0.5


def test_neighbours_are_independent() -> None:
    """Four numbers share one draw."""
    torch.manual_seed(0)
    zero = (dropout(torch.ones(400_000), 0.5) == 0).double().view(-1, 4)
    off = torch.corrcoef(zero.T) - torch.eye(4, dtype=torch.double)
    assert off.abs().max() < 4 / 100_000**0.5


def test_edges_and_seeds() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(dropout(x, 1.0), torch.zeros(3, 5))
    torch.manual_seed(1)
    y = dropout(x, 0.3)
    torch.manual_seed(1)
    assert torch.equal(y, dropout(x, 0.3))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y)
    layer = Dropout(0.5)
    assert torch.equal(layer.eval()(x), x)
    assert (layer.train()(torch.ones(100)) == 0).any()
