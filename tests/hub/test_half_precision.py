"""Weights in half precision keep the likelihood of a trained model: by a bound from its gradient, and within noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.hub.bundle import bundle
from zoo.interop.loading import load

PRECISION = 2.0**-11  # largest relative error of rounding to float16, and below its range 2^-25 absolutely


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A normalising flow with an exact likelihood, trained until its loss has fallen by far."""
    folder = tmp_path_factory.mktemp("half") / "run"
    zoo.fit("realnvp", "moons", max_steps=150, folder=folder, progress=False)
    return folder


def nats(model: Any, x: Tensor) -> Tensor:
    """Negative log-likelihood of each example (N,)."""
    found: Tensor = -model.log_prob(x)
    return found


def largest_change(model: Any, x: Tensor) -> float:
    """Bound of first order on the change of the mean loss, where all roundings of weights push in the worst direction.

    |sum g dw| <= sum |g| |dw|, with |dw| <= 2^-11 |w| + 2^-25.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(nats(model, x).mean(), weights, allow_unused=True)
    pairs = [(g.abs(), p.detach().abs()) for g, p in zip(gradients, weights, strict=True) if g is not None]
    return float(sum((g * (PRECISION * p + 2.0**-25)).sum() for g, p in pairs))


def four_bits(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices with 15 levels for each row."""
    found = dict(state)
    for name, x in state.items():
        if x.is_floating_point() and x.ndim >= 2:
            scale = x.abs().amax(tuple(range(1, x.ndim)), keepdim=True).clamp(min=1e-12) / 7
            found[name] = (x / scale).round() * scale
    return found


def test_half_precision_keeps_the_likelihood_and_four_bits_do_not(trained: Path, tmp_path: Path) -> None:
    data = zoo.create_data("moons")
    data.setup()
    x = data.val[0]
    full, published = load(trained), bundle(trained, tmp_path / "half", "half", half=True)
    half, coarse = load(tmp_path / "half"), load(trained)
    coarse.load_state_dict(four_bits(coarse.state_dict()))
    assert published.dtype == "float16"
    with torch.no_grad():
        exact, rounded, worse = nats(full, x), nats(half, x), nats(coarse, x)
    assert not torch.equal(exact, rounded), "the weights are rounded"
    bound, error = largest_change(full, x), float(exact.std() / len(x) ** 0.5)
    assert abs(float((rounded - exact).mean())) <= bound
    assert bound < error, "even the worst rounding is within the standard error of the metric"
    assert abs(float((worse - exact).mean())) > max(bound, error), "the control"
