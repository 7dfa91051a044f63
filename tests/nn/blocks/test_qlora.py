"""Adapters over matrices of 4 bits: outputs, gradients, and memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.io.vetting import model_bytes
from zoo.nn.blocks.int4 import GROUP, dequantized, quantized
from zoo.nn.blocks.lora import LoRALinear, QLoRALinear, adapters, packed_int4, unpacked
from zoo.nn.optim.base import build_config
from zoo.training.memory_estimate import estimate

SPEC = zoo.DataSpec(Tokens(12, 20), name="letters")
POLICY = {"name": "language_model", "backbone": {"name": "transformer", "d_model": 64, "n_layers": 2, "n_heads": 2}}


def layer(**settings: Any) -> tuple[QLoRALinear, Tensor]:
    """A layer whose adapter does something, and its matrix before rounding."""
    torch.manual_seed(0)
    plain = nn.Linear(2 * GROUP, 24)
    whole = plain.weight.detach().clone()
    adapted = QLoRALinear(plain, 4, 8.0, **settings)
    nn.init.normal_(adapted.up, std=0.3)
    return adapted, whole


def stage(**settings: Any) -> Any:
    torch.manual_seed(0)
    model = zoo.create_model("sft", data=SPEC, policy=POLICY, lora_rank=4, **settings)
    for name, parameter in model.policy.named_parameters():
        if "blocks" in name and name.endswith("out.weight"):
            nn.init.normal_(parameter, std=0.1)
    return model


def windows(n: int = 16) -> Batch:
    tokens = torch.randint(20, (n, 13), generator=torch.Generator().manual_seed(0))
    return Batch(tokens[:, :-1], tokens[:, 1:])


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"dora": True}])
def test_it_is_the_rounded_matrix_and_the_correction(settings: dict[str, bool]) -> None:
    adapted, whole = layer(**settings)
    rounded = dequantized(*quantized(whole))
    assert torch.equal(adapted.weight, rounded)
    scale = 8.0 / (2.0 if settings.get("rslora") else 4.0)
    matrix = rounded + scale * adapted.up @ adapted.down
    if settings.get("dora"):
        matrix = (rounded.norm(dim=1) / matrix.norm(dim=1).detach())[:, None] * matrix
    x = torch.randn(5, 3, 2 * GROUP, requires_grad=True)
    found, wanted = adapted(x), F.linear(x, matrix, adapted.bias)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    exact = F.linear(x, whole + scale * adapted.up @ adapted.down, adapted.bias)
    assert (found - exact).abs().max() > 1e-2, "negative control: the matrix before rounding"
    weight, learned = torch.randn_like(found), [x, *(p for p in adapted.parameters() if p.requires_grad)]
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), wanted, atol=1e-5, rtol=1e-5)
    grads = [torch.autograd.grad((y * weight).sum(), learned, allow_unused=True) for y in (found, wanted)]
    for ours, theirs in zip(*grads, strict=True):
        if theirs is not None:  # the magnitude, which `wanted` computes without
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapted.merged()(x), wanted, atol=1e-5, rtol=1e-5)


def test_every_step_of_rounding_comes_back() -> None:
    weight = torch.randn(24, 3 * GROUP)
    packed, scale_and_zero = packed_int4(weight)
    assert packed.shape == (24, 3 * GROUP // 2)
    assert torch.equal(unpacked(packed, scale_and_zero), dequantized(*quantized(weight)))


def kept(net: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps, without those of parameters and buffers."""
    own, found = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers(), x)}, dict[int, int]()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = net(x)
    assert y.requires_grad
    return sum(found.values())


def test_autograd_keeps_the_4_bits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, x = layer()[0], torch.randn(1, 2 * GROUP, requires_grad=True)
    whole = 4 * 24 * 2 * GROUP  # bytes of the matrix
    assert kept(adapted, x) < whole / 10
    monkeypatch.setattr(QLoRALinear, "frozen", LoRALinear.frozen)
    assert kept(adapted, x) >= whole, "negative control: the matrix as an operand of autograd"


def test_adapters_learn_alone() -> None:
    model, batch = stage(lora_4bit=True), windows()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(model.loss(batch)["loss"])
        losses[-1].backward()
        optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f"policy.net.{name}" for name in adapters(model.net)} != set()
    assert losses[-1] < 0.8 * losses[0], "noise is learned by heart, as far as a frozen head permits"
    nats = model.token_nll(batch)[0].detach()
    torch.testing.assert_close(model.merged().token_nll(batch)[0], nats, atol=1e-4, rtol=1e-4)


def test_weights_of_a_plain_model_are_read_and_given_back(tmp_path: Path) -> None:
    policy = zoo.create_model("language_model", data=SPEC, backbone=POLICY["backbone"])
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.2)
    model, plain = stage(lora_4bit=True), policy.state_dict()
    assert model.pretrained_state().keys() == plain.keys()
    model.load_pretrained(plain)
    for name, weight in model.pretrained_state().items():
        rounded = "blocks" in name and weight.ndim == 2
        assert torch.equal(weight, dequantized(*quantized(plain[name])) if rounded else plain[name]), name
    again = stage(lora_4bit=True)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.net(windows().x), model.net(windows().x))
    assert not torch.equal(again.net(windows().x), policy.net(windows().x))


def test_memory_of_the_base_is_counted() -> None:
    whole, small = stage(), stage(lora_4bit=True)
    matrices = [m for m in small.modules() if isinstance(m, QLoRALinear)]
    weights = sum(m.in_features * m.out_features for m in matrices)
    assert len(matrices) == 12  # of two blocks
    assert model_bytes(whole) - model_bytes(small) == int((4 - 0.625) * weights)
    found = [estimate(lambda on=on: stage(lora_4bit=on), windows(2), 4, build_config("adamw")) for on in (False, True)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].weights - found[1].weights == int((4 - 0.625) * weights)
    assert found[0].gradients == found[1].gradients
    assert found[1].activations is not None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(zoo.ZooError, match=r"model\.lora_4bit=true: no adapted layer has a width .* multiple of 32"):
        zoo.create_model("sft", data=SPEC, policy=POLICY | {"backbone": {"name": "transformer", "d_model": 48,
                         "n_heads": 2, "n_layers": 1, "d_ff": 40}}, lora_rank=2, lora_4bit=True)  # fmt: skip
    with pytest.raises(zoo.ZooError, match=r"lora_4bit=True: adapters are off"):
        zoo.create_model("sft", data=SPEC, policy=POLICY, lora_4bit=True)
