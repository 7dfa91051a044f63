"""Scaled rotary angles against the `transformers` library."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

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
