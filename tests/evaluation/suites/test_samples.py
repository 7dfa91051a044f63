"""Metrics of models that answer prompts."""

from types import SimpleNamespace
from typing import Any

import pytest

import zoo
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.text import answer_accuracy
from zoo.nn.samplers.text_stream import Completion


class Adds:
    """Answers sums, but no differences."""

    spec = SimpleNamespace(shape=(16,), text=True)

    def generate(self, prompts: list[str], **options: Any) -> list[Completion]:
        assert options["temperature"] == 0
        return [Completion(str(sum(map(int, p[:-1].split("+")))) if "+" in p else "?") for p in prompts]


@pytest.mark.parametrize("name", ["arithmetic_instructions", "arithmetic_preferences"])
def test_right_answers_are_counted(name: str) -> None:
    data: Any = zoo.create_data(name, max_operand=19, batch_size=4)
    data.setup()
    bench: Any = EvaluationContext(Adds(), data, EvaluationConfig(split="test"))  # type: ignore[arg-type]
    pairs = data.pairs("test")
    sums = sum("+" in question for question, _ in pairs) / len(pairs)
    (score,) = answer_accuracy(bench).values()
    assert 0.3 < sums < 0.7
    assert score.value == pytest.approx(sums)
    assert score.error == pytest.approx((sums * (1 - sums) / len(pairs)) ** 0.5)
