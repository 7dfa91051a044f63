"""Rewards of answers."""

import pytest

import zoo
from zoo.core import registry
from zoo.models.finetuning.rewards import reward


@pytest.mark.parametrize(
    ("name", "prompt", "completion", "answer", "worth"),
    [
        ("exact", "?", " 42\n", "42", 1),
        ("exact", "?", "42.", "42", 0),
        ("exact", "?", "", "42", 0),
        ("similar", "?", "abcd", "abxd", 0.75),
        ("similar", "?", "", "a", 0),
        ("arithmetic", "12+7=", "19", "", 1),
        ("arithmetic", "12+7=", "18", "18", 0),
        ("arithmetic", "Q: 3 - 10 = ", "-7 ", "", 1),
        ("arithmetic", "3*-4", "-12", "", 1),
        ("arithmetic", "12+7=", "19 or 20", "", 0),
        ("arithmetic", "12+7=", "", "", 0),
        ("arithmetic", "no sum", "1", "1", 0),
        ("python", "def f(x):\n    return", " x + 1\n", "", 1),
        ("python", "def f(x):\n    return", " x +\n", "", 0),
        ("python", "x = 1\n", "  \n", "", 0),
        ("python", "", "'\0'", "", 0),
        ("format", "", "-17 ", "", 1),
        ("format", "", "17 apples", "", 0),
        ({"name": "format", "pattern": "yes|no"}, "", "no", "", 1),
        ({"name": "format", "pattern": "yes|no"}, "", "nope", "", 0),
    ],
)
def test_worth(name: object, prompt: str, completion: str, answer: str, worth: float) -> None:
    assert reward(name, "model.reward")(prompt, completion, answer) == pytest.approx(worth)  # type: ignore[arg-type]


def test_every_reward_is_a_number_whatever_is_written() -> None:
    for name in registry.names("reward"):
        judge = reward(name, "model.reward")
        for completion in ("", "\0", "\ud800", "(" * 5000, "1" * 5000, "é" * 10):
            assert 0 <= judge("9999999999999999999999+1=", completion, "x") <= 1


def test_one_of_your_own() -> None:
    with registry.isolated():

        @zoo.register("reward", "brevity_of_a_test")
        def brevity(prompt: str, completion: str, answer: str, *, most: int = 4) -> float:
            return float(len(completion) <= most)

        assert reward({"name": "brevity_of_a_test", "most": 2}, "model.reward")("", "abc", "") == 0
        with pytest.raises(zoo.ZooError, match="did you mean 'most'"):
            reward({"name": "brevity_of_a_test", "mots": 2}, "model.reward")
