"""Low-rank adapters: they begin as nothing, learn alone, and can be added to the matrices; peft is the oracle."""

import peft
import pytest
import torch
from torch import nn

import zoo
from zoo.core.spaces import Tokens
from zoo.nn.blocks.lora import LoRALinear, adapters, add_adapters, merge_adapters, without_adapters

SPEC = zoo.DataSpec(Tokens(16, 20), name="letters")


def network() -> nn.Module:
    torch.manual_seed(0)
    net = zoo.create_model("gpt", data=SPEC, backbone={"d_model": 32, "n_layers": 2, "n_heads": 2}).net.eval()
    for p in net.parameters():  # branches begin at zero, where nothing would show
        nn.init.normal_(p, std=0.2)
    return net


def disturbed(net: nn.Module) -> nn.Module:
    for name, p in net.named_parameters():
        if name in adapters(net):
            nn.init.normal_(p, std=0.3)
    return net


X = torch.randint(20, (3, 16), generator=torch.Generator().manual_seed(0))


def test_it_begins_as_nothing() -> None:
    net = network()
    before, names = net(X), set(net.state_dict())
    add_adapters(net, 4, 8.0)
    assert torch.equal(net(X), before)
    assert set(net.state_dict()) - adapters(net) == names, "the weights keep their names"


@torch.no_grad()
def test_merged_equals_unmerged() -> None:
    net = network()
    plain = net(X)
    add_adapters(net, 4, 8.0)
    adapted = disturbed(net)(X)
    assert (adapted - plain).abs().max() > 0.1
    with without_adapters(net):
        assert torch.equal(net(X), plain)
    assert torch.equal(net(X), adapted)
    merge_adapters(net)
    assert not adapters(net)
    assert not any(isinstance(m, LoRALinear) for m in net.modules())
    torch.testing.assert_close(net(X), adapted, atol=1e-5, rtol=1e-5)


def test_only_adapters_learn() -> None:
    net = network()
    add_adapters(net, 4, 8.0)
    disturbed(net)(X).square().sum().backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == adapters(net) == {name for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_what_peft_computes(bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(7, 5, bias=bias)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    add_adapters(ours, 3, 12.0)
    other = peft.get_peft_model(theirs, peft.LoraConfig(r=3, lora_alpha=12, target_modules=["0"], lora_dropout=0.0))
    layer = other.base_model.model[0]
    disturbed(ours)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours[0].down)
        layer.lora_B["default"].weight.copy_(ours[0].up)
    x = torch.randn(4, 7)
    (ours(x).square().sum() + other(x).square().sum()).backward()
    torch.testing.assert_close(ours(x), other(x))
    torch.testing.assert_close(ours[0].down.grad, layer.lora_A["default"].weight.grad)
    torch.testing.assert_close(ours[0].up.grad, layer.lora_B["default"].weight.grad)
    merge_adapters(ours)
    torch.testing.assert_close(ours[0].weight, other.merge_and_unload()[0].weight)


def test_its_beginning_is_that_of_peft() -> None:
    """Both draw `down` from the same distribution: uniform within 1 / sqrt(inputs)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(400, 10))
    add_adapters(net, 100, 1.0)
    assert net[0].down.abs().max().item() == pytest.approx(400**-0.5, rel=1e-3)
    assert net[0].down.std().item() == pytest.approx(400**-0.5 / 3**0.5, rel=0.02)


def test_a_layer_may_be_left_out_and_one_is_needed() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    add_adapters(net, 1, 1.0, but=net[1])
    assert adapters(net) == {"0.down", "0.up"}
    with pytest.raises(zoo.ZooError, match="linear layers"):
        add_adapters(nn.Sequential(nn.Conv1d(1, 1, 1)), 1, 1.0)
