"""Options of `zoo sample` are the keyword-only parameters of the model's own methods."""

import pytest

from zoo.cli.draw import parse_options, typed_prompts
from zoo.core.errors import ConfigError, ZooError
from zoo.core.signature import Fraction, PositiveInt


def sample(n: int, *, condition=None, generator=None, steps: PositiveInt = 10, guidance: float = 1.0) -> None:
    """A sampler.

    Args:
        steps: of the solver.
        guidance: scale.
    """


def generate(prompts: list[str], *, stop: list[str] | tuple[str, ...] = (), share: Fraction = 0.5, **options) -> None:
    """Text."""


def test_words_become_typed_arguments() -> None:
    assert parse_options(sample, ["steps=50", "guidance=3"], "toy") == {"steps": 50, "guidance": 3.0}
    assert parse_options(sample, [], "toy") == {}, "the method's own defaults stay"


def test_methods_with_further_options_take_those_of_sampling() -> None:
    found = parse_options(generate, ["temperature=0.8", "top_k=3", "stop=END"], "toy")
    assert found == {"temperature": 0.8, "top_k": 3, "stop": ["END"]}
    assert parse_options(generate, ["stop=[a,b]"], "toy") == {"stop": ["a", "b"]}


@pytest.mark.parametrize("word", [r"stop=\n\n", r"stop=[\n\n]", r"stop='\n\n'", 'stop="\\n\\n"', r'stop=["\n\n"]'])
def test_line_feeds_are_typed_as_escapes(word) -> None:
    assert parse_options(generate, [word], "toy") == {"stop": ["\n\n"]}
    assert parse_options(generate, [r"stop=a\\n"], "toy") == {"stop": [r"a\n"]}


def test_prompts_are_put_into_the_template_of_the_run(tmp_path) -> None:
    assert typed_prompts(tmp_path / "best.ckpt", [r"a\nb"]) == ["a\nb"], "an export has no run beside it"
    run = r"{model: {name: sft}, trainer: {}, data: {name: instructions, prompt: 'Translate: {de}\n'}}"
    (tmp_path / "config.yaml").write_text(run)
    for place in (tmp_path, tmp_path / "best.ckpt"):
        assert typed_prompts(place, ["Hallo", r"Translate: Hallo\n"]) == ["Translate: Hallo\n"] * 2


@pytest.mark.parametrize(
    ("method", "word", "message"),
    [
        (sample, "step=3", "did you mean 'steps'"),
        (sample, "temperature=3", "unknown option of toy 'temperature'"),
        (sample, "generator=3", "unknown option"),
        (sample, "steps=0", "greater than 0"),
        (sample, "steps=many", "steps"),
        (sample, "steps", "Write KEY=VALUE"),
        (generate, "share=2", "at most 1"),
    ],
)
def test_what_does_not_fit_is_refused(method, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(method, [word], "toy")


def test_all_errors_are_of_the_zoo() -> None:
    assert issubclass(ConfigError, ZooError)
