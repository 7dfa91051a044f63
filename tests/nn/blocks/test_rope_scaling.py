"""Scaled rotary angles against the `transformers` library."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import zoo
from zoo.core import registry
from zoo.nn.blocks.position_encoding import rotary_rates, rotate, rotation

CASES = [
    ({"name": "linear", "factor": 4.0}, {}),
    ({"name": "llama3"}, {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ({"name": "llama3", "factor": 32.0, "high_freq_factor": 2.5, "original_context": 64}, {"low_freq_factor": 1.0}),
    ({"name": "yarn"}, {}),
    ({"name": "yarn", "factor": 8.0, "original_context": 64, "beta_fast": 8.0, "attention_factor": 1.3}, {}),
    ({"name": "yarn", "original_context": 512, "truncate": False}, {}),
]


@pytest.mark.parametrize(("ours", "more"), CASES)
@pytest.mark.parametrize(("d_head", "theta"), [(8, 10000.0), (64, 500000.0)])
def test_angles_equal_those_of_transformers(ours, more, d_head, theta):
    settings = {s.name: s.default for s in registry.peek("rope_scaling", ours["name"]).settings} | ours
    theirs = {"rope_type": settings.pop("name"), "rope_theta": theta, **more, **settings}
    theirs["original_max_position_embeddings"] = theirs.pop("original_context", 32)
    if not theirs.get("attention_factor", 1):
        del theirs["attention_factor"]
    config = LlamaConfig(hidden_size=d_head * 2, num_attention_heads=2, rope_parameters=theirs)
    want, factor = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](config, "cpu")
    got, scale = registry.build("rope_scaling", ours, rotary_rates(d_head, theta), theta)
    torch.testing.assert_close(got, want, rtol=2e-6, atol=0)
    assert scale == pytest.approx(factor)
    assert not torch.allclose(got, rotary_rates(d_head, theta), rtol=1e-3)


def test_a_factor_multiplies_the_rotated_vectors():
    x, angles = torch.randn(2, 1, 5, 8), torch.randn(5, 4)
    torch.testing.assert_close(rotate(x, rotation(angles, 1.5)), 1.5 * rotate(x, rotation(angles)))


def long_network(**settings):
    torch.manual_seed(0)
    scaling = {"name": "longrope", "short_factor": [1.0, 1.2], "long_factor": [2.0, 9.0], "original_context": 6}
    spec = zoo.DataSpec(zoo.core.spaces.Tokens(20, 11))
    sizes = {"d_model": 8, "n_layers": 2, "n_heads": 2, "rope_scaling": scaling, **settings}
    net = zoo.create_model("language_model", data=spec, backbone=sizes).net.double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.4)
    return net


@torch.no_grad()
def test_a_cache_reads_a_text_again_when_it_becomes_long_or_short():
    net, tokens = long_network(), torch.randint(11, (3, 14))
    want = [net(tokens[:, : n + 1])[:, -1] for n in range(14)]  # each without a cache
    assert (net(tokens)[:, 3] - want[3]).abs().max() > 1e-3, "negative control: a long text has other angles"
    logits, state = net.prefill(tokens[:, :3])
    found = [logits, *(net.step(tokens[:, n], state) for n in range(3, 14))]
    torch.testing.assert_close(torch.stack(found), torch.stack(want[2:]), atol=1e-10, rtol=0)
    net.rewind(state, 10)  # four tokens are left
    torch.testing.assert_close(net.step(tokens[:, 4], state), want[4], atol=1e-10, rtol=0)
    torch.testing.assert_close(net.extend(tokens[:, 5:9], state)[:, -1], want[8], atol=1e-10, rtol=0)
    net.reorder(state, torch.tensor([2, 0]))
    torch.testing.assert_close(net.step(tokens[[2, 0], 9], state), want[9][[2, 0]], atol=1e-10, rtol=0)


@torch.no_grad()
def test_rows_become_long_one_by_one():
    net, tokens = long_network(), torch.randint(11, (2, 14))
    padding = torch.tensor([0, 3])  # the second text is three tokens shorter
    want = [torch.cat([net(tokens[:1, : n + 1])[:, -1], net(tokens[1:, 3 : n + 1])[:, -1]]) for n in range(3, 14)]
    logits, state = net.prefill(tokens[:, :4], padding)
    found = [logits, *(net.step(tokens[:, n], state) for n in range(4, 14))]
    torch.testing.assert_close(torch.stack(found), torch.stack(want), atol=1e-10, rtol=0)
    states = [net.prefill(tokens[i : i + 1, 3 * i : 5 + 3 * i])[1] for i in (0, 1)]
    states[0] = net.merge(states[0], states[1])
    following = torch.stack([tokens[0, 5:12], tokens[1, 8:].repeat(2)[:7]])
    for n in range(7):
        rows = [torch.cat([tokens[i, 3 * i : 5 + 3 * i], following[i, : n + 1]]) for i in (0, 1)]
        found = net.step(following[:, n], states[0])
        torch.testing.assert_close(found, torch.cat([net(row[None])[:, -1] for row in rows]), atol=1e-10, rtol=0)


@torch.no_grad()
def test_documents_in_one_window_have_the_angles_of_their_own_length():
    net = long_network()
    net.end = 10
    short, long = torch.randint(10, (4,)), torch.randint(10, (9,))
    short[0] = long[0] = net.end
    both = net(torch.cat([short, long])[None])[0]
    torch.testing.assert_close(both[:4], net(short[None])[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(both[4:], net(long[None])[0], atol=1e-10, rtol=0)


def test_factors_of_another_number_are_refused():
    with pytest.raises(zoo.ZooError, match=r"long_factor=.*: not factors of 2 angles"):
        long_network(rope_scaling={"name": "longrope", "long_factor": [1.0, 2.0, 3.0]})
