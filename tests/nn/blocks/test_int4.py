"""4-bit weights: rounding is bounded, the layer is its formula with and without torch's kernel."""

from typing import Any

import pytest
import torch
from torch import nn

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.nn.blocks import int4
from zoo.nn.blocks.int4 import GROUP, Int4Linear, dequantized, int4_or_int8, quantized
from zoo.nn.blocks.int8 import Int8Linear


def test_rounding_is_off_by_at_most_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3 * GROUP) * torch.logspace(-2, 2, 5)[:, None]
    steps, scale_and_zero = quantized(weight)
    scale = scale_and_zero[..., 0].T.float().repeat_interleave(GROUP, 1)  # (out, in)
    error = (dequantized(steps, scale_and_zero) - weight).abs()
    rounding = 15 * scale * 2**-8 + scale_and_zero[..., 1].T.float().abs().repeat_interleave(GROUP, 1) * 2**-8
    assert (error <= scale / 2 + rounding).all()
    assert (error > scale / 4).any(), "the control: a quarter of a step is not a bound"
    assert steps.dtype == torch.uint8
    assert steps.min() == 0
    assert steps.max() == 15


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_its_formula(kernel: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(int4, "KERNEL", None)
    torch.manual_seed(0)
    layer = nn.Linear(2 * GROUP, 48, bias=bias)
    small, x = Int4Linear(layer), torch.randn(2, 3, 2 * GROUP)
    assert small.fast is kernel
    whole = dequantized(*quantized(layer.weight.detach())).double()
    wanted = x.double() @ whole.T + (layer.bias.double() if bias else 0)
    found = small(x)
    assert found.shape == (2, 3, 48)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, atol=0.03, rtol=0.02)  # bfloat16
    assert (found - layer(x)).abs().max() > 0.03, "the control: rounding shows"
    assert small.packed.nbytes == layer.weight.numel() // 2


def test_a_model_with_either_number_of_bits() -> None:
    def model() -> Any:
        torch.manual_seed(0)
        sizes = {"d_model": 64, "n_layers": 2, "n_heads": 2, "tie_weights": False, "d_ff": 88}
        made: Any = zoo.create_model("llama", data=zoo.DataSpec(Tokens(12, 20), name="letters"), backbone=sizes)
        for p in made.parameters():
            nn.init.normal_(p, std=0.15)
        return made.eval()

    x = torch.randint(20, (8, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model().net(x).log_softmax(-1)
        lost = []
        for bits in (8, 4):
            after = model().quantize(bits).net(x).log_softmax(-1)
            lost.append(float((before.exp() * (before - after)).sum(-1).mean()))
    assert 0 < lost[0] < lost[1] < 0.2, "nats"
    kinds = {type(m) for m in model().quantize(4).net.modules()}
    assert {Int4Linear, Int8Linear} <= kinds, "88 columns and 20 rows do not have groups"
    with pytest.raises(ZooError, match="bits=3: weights have 4 or 8 bits"):
        model().quantize(3)


def test_sizes_without_groups_have_8_bits() -> None:
    assert isinstance(int4_or_int8(nn.Linear(GROUP, 16)), Int4Linear)
    assert isinstance(int4_or_int8(nn.Linear(GROUP + 1, 16)), Int8Linear)
    assert isinstance(int4_or_int8(nn.Linear(GROUP, 17)), Int8Linear)
