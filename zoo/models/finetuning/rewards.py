"""What an answer is worth, checked by a program: `@register("reward", NAME)` on f(prompt, completion, answer) -> float.

The completion is what the model wrote, the answer what the data has (it may be empty). Keyword-only parameters are
settings: `model.reward={name: format, pattern: '[0-9]+'}`.
"""

import re
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from functools import partial
from typing import Any

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.metrics.python_source import parses

Reward = Callable[[str, str, str], float]
SUM = re.compile(r"(-?\d{1,18})\s*([-+*])\s*(-?\d{1,18})\s*=?\s*$")


def reward(config: str | Mapping[str, Any], where: str) -> Reward:
    """The registered reward of that name and settings.

    Raises:
        ZooError: unknown, or a setting that it does not have.
    """
    registry.build("reward", config, "", "", "", where=where)  # checks everything, once
    settings = {"name": config} if isinstance(config, str) else dict(config)
    return partial(registry.get("reward", settings.pop("name")), **settings)


@register("reward", "exact")
def exact(prompt: str, completion: str, answer: str) -> float:
    """1 for the answer itself, white space around it aside."""
    return float(completion.strip() == answer.strip())


@register("reward", "similar")
def similar(prompt: str, completion: str, answer: str) -> float:
    """From 0 to 1: twice the characters in common, over those of both (Ratcliff & Metzener 1988)."""
    return SequenceMatcher(None, completion, answer, autojunk=False).ratio()


@register("reward", "arithmetic")
def arithmetic(prompt: str, completion: str, answer: str) -> float:
    """1 for the value of the sum, difference or product that ends the prompt ("12+7="), whatever the answer says."""
    found = SUM.search(prompt)
    if found is None:
        return 0.0
    a, sign, b = int(found[1]), found[2], int(found[3])
    value = a + b if sign == "+" else a - b if sign == "-" else a * b
    return float(completion.strip() == str(value))


@register("reward", "python")
def python(prompt: str, completion: str, answer: str) -> float:
    """1 where prompt and completion together are a Python module that parses and the completion is not blank."""
    return float(bool(completion.strip()) and parses(prompt + completion))


@register("reward", "format")
def format_(prompt: str, completion: str, answer: str, *, pattern: str = r"\s*-?\d+\s*") -> float:
    """1 where a regular expression matches the whole completion."""
    try:
        return float(re.fullmatch(pattern, completion) is not None)
    except re.error as error:
        raise ZooError(f"reward format: pattern={pattern!r} is no regular expression ({error}).") from error
