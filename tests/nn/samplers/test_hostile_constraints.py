"""Constraints that cannot be met are refused in one sentence, and soon."""

import pytest
import torch

from zoo.core.errors import ConfigError
from zoo.nn.samplers.constraint import TokenConstraint, Vocabulary
from zoo.nn.samplers.logit_rules import LogitRules
from zoo.nn.samplers.sampling_params import SamplingParams

LETTERS = Vocabulary((b"a", b"b", b""), (2,))


@pytest.mark.parametrize("pattern", ["(" * 2000 + "a" + ")" * 2000, "a{" + "9" * 5000 + "}", "(a?){1,9000}"])
def test_a_pattern_that_is_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"^regex="):
        TokenConstraint(pattern, LETTERS)


def test_a_search_for_a_match_that_does_not_exist_ends() -> None:
    with pytest.raises(ConfigError, match="a match was not found"):
        TokenConstraint("[ab]*a[ab]{20}~", LETTERS)
    assert TokenConstraint("[ab]*a[ab]{20}", LETTERS).start


@pytest.mark.parametrize(
    "schema",
    [
        '{"enum": 5}', '{"enum": "abc"}', '{"anyOf": 5}', '{"type": {}}', '{"type": ["string", {}]}',
        '{"type": "object", "properties": 5}', '{"type": "object", "required": 5}',
        '{"type": "object", "required": [["a"]]}', '{"type": "string", "minLength": -1}',
        '{"type": "array", "items": {"type": "null"}, "minItems": "x"}', "[" * 5000 + "]" * 5000,
    ],
)  # fmt: skip
def test_a_schema_with_a_value_of_another_type_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError, match=r"^json_schema"):
        SamplingParams(json_schema=schema)


@pytest.mark.parametrize("bias", [{"x": 1}, {1: "a"}, {1: None}, {1: float("nan")}, {1: float("inf")}, {1.5: 1}])
def test_a_bias_that_is_not_a_finite_number_of_a_token_is_refused(bias: dict) -> None:
    with pytest.raises(ConfigError, match="logit_bias"):
        LogitRules(SamplingParams(logit_bias=bias), [0], 3, 0, LETTERS, "cpu")
    assert LogitRules(SamplingParams(logit_bias={"1": "2"}), [0], 3, 0, LETTERS, "cpu").apply(torch.zeros(3))[1] == 2
