"""Positions survive the conversion of weights to 16 bits; those of every model, in `tests/contracts/test_models.py`."""

import pytest
import torch
from torch import nn

from tests.contracts.test_models import constants
from tests.nn.networks.test_transformer import build
from zoo.nn.blocks.position_encoding import alibi_slopes, relative_bucket, rotary_angles, rotary_rates, sinusoidal
from zoo.nn.blocks.transformer_block import TransformerStack

DTYPES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "alibi"])
@pytest.mark.parametrize("convert", [nn.Module.bfloat16, nn.Module.half, nn.Module.double, lambda net: net.to("meta")])
def test_constants_stay_in_single_precision(positions, convert):
    net = convert(build(context=3000, position_encoding=positions))
    found = list(constants(net).values())
    assert [value.dtype for value in found] == [torch.float32]
    assert found[0].device == net.embedding.weight.device


@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_do_not_depend_on_the_default_type(dtype):
    distance = torch.arange(-3000, 3000)

    def tables():
        return [
            sinusoidal(3000, 8), rotary_angles(3000, rotary_rates(8)), alibi_slopes(6),
            relative_bucket(distance, True), relative_bucket(distance, False),
        ]  # fmt: skip

    before = tables()
    torch.set_default_dtype(dtype)
    try:
        after = tables()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, two in zip(before, after, strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "alibi", "relative"])
@torch.no_grad()
def test_late_positions_predict_in_bfloat16_as_in_single_precision(positions):
    """Total variation of next-token distributions, late against early: rounding does not grow with the position."""
    net = build(context=2048, position_encoding=positions, std=0.3)
    x = torch.randint(0, 7, (1, 2048), generator=torch.Generator().manual_seed(1))
    want = net(x).softmax(-1)
    got = net.bfloat16()(x).float().softmax(-1)
    apart = 0.5 * (got - want).abs().sum(-1)[0]  # (T,)
    assert want.var(1).mean() > 1e-3
    assert apart[1024:].mean() < 2 * apart[:64].mean()


def test_the_old_table_would_show():
    """The control: with angles in bfloat16, late positions are wrong."""
    net = build(context=2048)
    x = torch.randint(0, 7, (1, 2048), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = net(x).softmax(-1)
        assert isinstance(net, TransformerStack)
        net.angles = net.angles.bfloat16().float()
        apart = 0.5 * (net(x).softmax(-1) - want).abs().sum(-1)[0]
    assert apart[1024:].mean() > 0.05
