"""8-bit weights: rounding is bounded, the layer is its formula, and probabilities of a model hardly change."""

from typing import Any

import pytest
import torch
from torch import nn

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.nn.blocks import int8
from zoo.nn.blocks.int8 import Int8Linear, quantize_linear_layers, quantized

SPEC = zoo.DataSpec(Tokens(12, 20), name="letters")


def test_rounding_is_off_by_at_most_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(7, 33) * torch.logspace(-4, 3, 7)[:, None]
    weight[3] = 0
    whole, scale = quantized(weight)
    assert whole.dtype == torch.int8
    error = (whole * scale[:, None] - weight).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    assert (whole.abs().amax(1) == torch.tensor([127, 127, 127, 0, 127, 127, 127])).all()
    one = weight.abs().max() / 127  # the control: one scale for all rows
    assert ((weight / one).round() * one - weight)[0].abs().max() > 100 * error[0].max()


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_its_formula(kernel: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(int8, "KERNEL", None)
    torch.manual_seed(0)
    layer = nn.Linear(64, 24, bias=bias)
    small, x = Int8Linear(layer), torch.randn(2, 3, 64)
    whole = small.weight.double()
    wanted = x.double() @ whole.T + (layer.bias.double() if bias else 0)
    found = small(x)
    assert found.dtype == torch.float32
    assert found.shape == (2, 3, 24)
    torch.testing.assert_close(found.double(), wanted, atol=0.02, rtol=0.02)  # bfloat16
    assert (found - layer(x)).abs().max() < 0.03


def test_probabilities_hardly_change_and_generation_uses_them() -> None:
    torch.manual_seed(0)
    model: Any = zoo.create_model(
        "llama", data=SPEC, backbone={"d_model": 64, "n_layers": 2, "n_heads": 2, "tie_weights": False}
    )
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    x = torch.randint(20, (8, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model.eval().net(x).log_softmax(-1)
        model.quantize()
        after = model.net(x).log_softmax(-1)
        logits, state = model.net.prefill(x[:, :5])
        steps = [logits.log_softmax(-1)] + [model.net.step(x[:, t], state).log_softmax(-1) for t in (5, 6)]
    apart = (before.exp() * (before - after)).sum(-1)
    assert 0 < apart.mean() < 0.01, "nats"
    torch.testing.assert_close(torch.stack(steps, 1), after[:, 4:7], atol=0.1, rtol=0.05)
    assert not any(type(m) is nn.Linear for m in model.net.modules())
    sizes = sum(b.numel() * b.element_size() for b in model.net.blocks.buffers())
    assert sizes < 0.3 * sum(4 * m.steps.numel() for m in model.net.modules() if isinstance(m, Int8Linear))


def test_networks_without_linear_layers_are_refused() -> None:
    with pytest.raises(ZooError, match="ngram: its network does not have linear layers"):
        zoo.create_model("ngram", data=SPEC).quantize()
    assert quantize_linear_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))) == 2


def test_odd_widths_avoid_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given: Any) -> None:
        raise AssertionError("The kernel was called.")

    monkeypatch.setattr(int8, "KERNEL", kernel)
    layer, x = Int8Linear(nn.Linear(88, 5)), torch.randn(3, 88)
    assert layer(x).sub(x @ layer.weight.T + layer.bias).abs().max() < 0.05
    with pytest.raises(AssertionError, match="called"):
        Int8Linear(nn.Linear(96, 5))(torch.randn(3, 96))
