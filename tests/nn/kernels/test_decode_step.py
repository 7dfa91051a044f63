"""The short step of decoding against the network's own pass over one more token."""

import copy
from typing import Any

import pytest
import torch

from zoo.nn.blocks.int4 import int4_or_int8
from zoo.nn.blocks.int8 import quantize_linear_layers
from zoo.nn.kernels.decode_step import DecodeStep, passive, supported, usable
from zoo.nn.networks.transformer import transformer

LLAMA = {"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": False, "tie_weights": False}
SUPPORTED: dict[str, dict[str, Any]] = {
    "gpt": {},
    "groups of queries": {"n_kv_heads": 2, **LLAMA},
    "one key head": {"n_kv_heads": 1, "attention_scale": 0.3},
    "window": {"window": 5},
    "windows and global layers": {"window": 4, "global_every": 2, "window_theta": 100.0, "norm": "rmsnorm"},
    "part of the channels": {"partial_rotary_factor": 0.5},
    "scaled angles": {"rope_scaling": {"name": "llama3", "factor": 4.0, "original_context": 16}},
    "learned positions": {"position_encoding": "learned", "mlp": "gelu", "bias": True},
    "sinusoids": {"position_encoding": "sinusoidal", "mlp": "geglu"},
    "gains and biases": {"qk_norm_gain": True, "qkv_bias": True, "norm": "rmsnorm", "scale_embeddings": True},
    "experts": {"n_experts": 3, "mlp": "swiglu"},
    "soft caps of logits": {"logit_softcap": 5.0, "mlp": "relu"},
}
OTHER: dict[str, dict[str, Any]] = {
    "soft caps of scores": {"softcap": 5.0},
    "linear biases": {"position_encoding": "alibi"},
    "post-norm": {"norm_place": "after"},
    "both norms": {"norm_place": "both"},
    "parallel branches": {"parallel_residual": True},
    "other angles of long texts": {"rope_scaling": {"name": "longrope", "original_context": 8}},
}


def network(settings: dict[str, Any], context: int = 160) -> Any:
    torch.manual_seed(0)
    net = transformer(40, 40, context, **{"d_model": 32, "n_layers": 3, "n_heads": 4, **settings}).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return net


def largest_difference(net: Any, steps: int, unequal: bool, wanted: bool = True) -> float:
    """Largest difference of logits between the step and the pass, on caches that both fill in their own way."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(40, (3, 6 + steps), generator=generator)
    padding = torch.tensor([0, 4, 2]) if unequal else None
    with torch.no_grad():
        (_, mine), (_, plain) = (net.prefill(tokens[:, :6], padding) for _ in range(2))
        worst = 0.0
        for token in tokens[:, 6:].T:
            logits = net.step(token, mine)
            worst = max(worst, float((logits - net(token[:, None], plain)[:, -1]).abs().max()))
    assert bool(mine.step) is wanted
    assert mine.used == plain.used
    return worst


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_step_is_a_pass_over_one_more_token(name: str, unequal: bool) -> None:
    """Of single precision and logits of about 10, for texts of equal and of unequal lengths."""
    assert largest_difference(network(SUPPORTED[name]), 12, unequal) < 1e-4


@pytest.mark.parametrize("name", OTHER)
def test_other_networks_take_the_pass(name: str) -> None:
    assert largest_difference(network(OTHER[name]), 3, False, wanted=False) == 0


def test_the_cache_grows_and_is_full() -> None:
    """Beyond the first block of 128 columns, and up to the context."""
    assert largest_difference(network({"n_kv_heads": 2}, 150), 144, True) < 1e-4
    with pytest.raises(Exception, match="sequence of 151 tokens"):
        largest_difference(network({}, 150), 145, False)


def test_rows_are_reordered_merged_and_removed() -> None:
    net, twin = network({"n_kv_heads": 2}), network({"n_kv_heads": 2})
    tokens = torch.randint(40, (3, 9), generator=torch.Generator().manual_seed(2))
    rows = torch.tensor([2, 0, 0])
    with torch.no_grad():
        caches = [net.prefill(tokens[:, :5])[1], twin.prefill(tokens[:, :5])[1]]
        net.step(tokens[:, 5], caches[0])
        twin(tokens[:, 5:6], caches[1])
        for each, cache in zip((net, twin), caches, strict=True):
            each.reorder(cache, rows)
        torch.testing.assert_close(net.step(tokens[:, 6], caches[0]), twin(tokens[:, 6:7], caches[1])[:, -1])
        net.rewind(caches[0], 2)
        twin.rewind(caches[1], 2)
        torch.testing.assert_close(net.step(tokens[:, 7], caches[0]), twin(tokens[:, 7:8], caches[1])[:, -1])
        for i, each in enumerate((net, twin)):
            caches[i] = each.merge(caches[i], each.prefill(tokens[:1, :3])[1])
        more = torch.tensor([1, 2, 3, 4])
        torch.testing.assert_close(net.step(more, caches[0]), twin(more[:, None], caches[1])[:, -1])
        assert caches[0].step


@pytest.mark.parametrize("make", ["int8", "int4"])
def test_quantised_layers(make: str) -> None:
    """Sums are rounded to bfloat16 in both, in another order."""
    net = network({"d_model": 64, "d_ff": 128, **LLAMA})
    quantize_linear_layers(net, *(() if make == "int8" else (int4_or_int8,)))
    assert largest_difference(net, 6, True) < 0.2


def test_hooks_gradients_and_changed_weights_are_respected() -> None:
    net = network({})
    token, prompt = torch.tensor([1]), torch.tensor([[1, 2]])
    seen: list[int] = []
    hook = net.blocks[0].attention.register_forward_hook(lambda *_: seen.append(1))
    assert not supported(net)
    hook.remove()
    assert supported(net)
    with torch.no_grad():
        _, cache = net.prefill(prompt)
        net.step(token, cache)
        assert isinstance(cache.step, DecodeStep)
        assert usable()
        with torch.autocast("cpu", torch.bfloat16):
            assert not usable()
    assert not usable(), "with gradients the pass is taken"
    other = copy.deepcopy(net)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.5)
        a, b = (each.step(token, each.prefill(prompt)[1]) for each in (net, other))
    assert not torch.allclose(a, b)


def test_passive_hooks_of_the_network_are_called_by_the_step() -> None:
    net, seen = network({}), list[int]()

    def count(*_: Any) -> None:
        seen.append(1)

    for hook, fast in ((passive(count), True), (lambda *_: None, False)):
        handle = net.register_forward_pre_hook(hook)
        assert supported(net) is fast
        handle.remove()
    handle = net.register_forward_pre_hook(passive(count))
    inner = net.blocks[0].register_forward_pre_hook(count)
    assert not supported(net), "the step does not call blocks"
    inner.remove()
    with torch.no_grad():
        _, cache = net.prefill(torch.tensor([[1, 2]]))
        net.step(torch.tensor([1]), cache)
        net.step(torch.tensor([2]), cache)
    assert isinstance(cache.step, DecodeStep)
    assert len(seen) == 3
    handle.remove()


def test_a_wrong_rotation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the opposite sign of the sines."""
    right = DecodeStep.turn

    def wrong(*given: Any) -> Any:
        found = right(*given)
        return None if found is None else (found[0], -found[1])

    monkeypatch.setattr(DecodeStep, "turn", staticmethod(wrong))
    assert largest_difference(network({}), 4, False) > 0.1
