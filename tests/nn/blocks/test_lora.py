"""Low-rank adapters: they begin as nothing, learn alone, and can be added to the matrices; peft is the oracle."""

from typing import Any

import peft
import pytest
import torch
from torch import nn

import zoo
from zoo.core.spaces import Tokens
from zoo.nn.blocks.lora import LoRALinear, adapters, add_adapters, merge_adapters, reset_magnitudes, without_adapters

SPEC = zoo.DataSpec(Tokens(16, 20), name="letters")


def network() -> nn.Module:
    torch.manual_seed(0)
    net = zoo.create_model("gpt", data=SPEC, backbone={"d_model": 32, "n_layers": 2, "n_heads": 2}).net.eval()
    for p in net.parameters():  # branches begin at zero, where nothing would show
        nn.init.normal_(p, std=0.2)
    return net


def gated(n_layers: int) -> nn.Module:
    shape = {"d_model": 32, "n_layers": n_layers, "n_heads": 2, "mlp": "swiglu"}
    return zoo.create_model("gpt", data=SPEC, backbone=shape).net


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
@pytest.mark.parametrize("dora", [False, True])
def test_merged_equals_unmerged(dora: bool) -> None:
    net = network()
    plain = net(X)
    add_adapters(net, 4, 8.0, dora=dora)
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


KINDS = [{}, {"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}]


def beside_peft(bias: bool, rslora: bool, dora: bool) -> tuple[Any, Any, Any]:
    """Our layer, peft's model and its layer, with equal weights away from their start."""
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(7, 5, bias=bias)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    add_adapters(ours, 3, 12.0, rslora=rslora, dora=dora)
    config = peft.LoraConfig(r=3, lora_alpha=12, target_modules=["0"], use_rslora=rslora, use_dora=dora)
    other: Any = peft.get_peft_model(theirs, config)
    layer = other.base_model.model[0]
    disturbed(ours)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours[0].down)
        layer.lora_B["default"].weight.copy_(ours[0].up)
        if dora:
            layer.lora_magnitude_vector["default"].weight.copy_(ours[0].magnitude)
    return ours, other, layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_what_peft_computes(bias: bool, kind: dict[str, bool]) -> None:
    rslora, dora = kind.get("rslora", False), kind.get("dora", False)
    ours, other, layer = beside_peft(bias, rslora, dora)
    x = torch.randn(4, 7)
    (ours(x).square().sum() + other(x).square().sum()).backward()
    torch.testing.assert_close(ours(x), other(x))
    torch.testing.assert_close(ours[0].down.grad, layer.lora_A["default"].weight.grad)
    torch.testing.assert_close(ours[0].up.grad, layer.lora_B["default"].weight.grad)
    if dora:
        torch.testing.assert_close(ours[0].magnitude.grad, layer.lora_magnitude_vector["default"].weight.grad)
    output = ours(x)
    merge_adapters(ours)
    torch.testing.assert_close(ours(x), output)
    torch.testing.assert_close(ours[0].weight, other.merge_and_unload()[0].weight)


@pytest.mark.parametrize(("rslora", "dora"), [(True, False), (False, True)])
def test_the_kinds_differ(rslora: bool, dora: bool) -> None:
    """Negative control: a plain adapter with the same matrices computes something else than peft's other kinds."""
    ours, other, _ = beside_peft(False, rslora, dora)
    plain = LoRALinear(nn.Linear(7, 5, bias=False), 3, 12.0)
    plain.load_state_dict({k: v for k, v in ours[0].state_dict().items() if k != "magnitude"})
    x = torch.randn(4, 7)
    assert (plain(x) - other(x)).abs().max() > 0.1


def test_dora_takes_the_norm_as_a_constant() -> None:
    """The gradient through the norm too is another one (Liu et al. 2024, section 4.3)."""
    layer = beside_peft(False, False, True)[0][0]
    x = torch.randn(4, 7)
    layer(x).square().sum().backward()
    direction = layer.weight + layer.scale * layer.up @ layer.down
    for norm, same in [(direction.norm(dim=1).detach(), True), (direction.norm(dim=1), False)]:
        weight = (layer.magnitude / norm)[:, None] * direction
        (gradient,) = torch.autograd.grad((x @ weight.T).square().sum(), layer.up, retain_graph=True)
        assert torch.allclose(gradient, layer.up.grad, rtol=1e-4, atol=1e-4) is same


def test_dora_begins_as_nothing_and_rows_of_zeros_stay_finite() -> None:
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight[1].data)
    adapted, x = LoRALinear(layer, 2, 4.0, dora=True), torch.randn(5, 4)
    torch.testing.assert_close(adapted(x), layer(x))
    nn.init.normal_(adapted.down)
    adapted(x).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in adapted.parameters())
    nn.init.normal_(layer.weight)
    assert not torch.allclose(adapted(x), layer(x)), "magnitudes of other weights"
    reset_magnitudes(adapted)
    torch.testing.assert_close(adapted(x), layer(x))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["query", "value"], {"blocks.0.attention.query", "blocks.0.attention.value", "blocks.1.attention.query",
                              "blocks.1.attention.value"}),
        (["attention.out"], {"blocks.0.attention.out", "blocks.1.attention.out"}),
        (["blocks.1.mlp.*"], {"blocks.1.mlp.gate", "blocks.1.mlp.up", "blocks.1.mlp.out"}),
        (["blocks.0.mlp.out"], {"blocks.0.mlp.out"}),
    ],
)  # fmt: skip
def test_targets_are_names_or_patterns(targets: list[str], expected: set[str]) -> None:
    net = gated(2)
    add_adapters(net, 2, 4.0, targets=targets)
    assert {n for n, m in net.named_modules() if isinstance(m, LoRALinear)} == expected


@pytest.mark.parametrize("targets", [["query", "q_proj"], ["lockes.0.*"], []])
def test_an_unknown_target_lists_the_known_ones(targets: list[str]) -> None:
    with pytest.raises(zoo.ZooError, match=r"model\.lora_targets=.*Choose from gate, key, out, query, up, value"):
        add_adapters(gated(1), 2, 4.0, targets=targets)


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
