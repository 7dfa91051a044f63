"""Rewards of answers, computed by a program: `@register("reward", NAME)` on f(prompt, completion, answer) -> float.

The completion comes from the model, the answer from the data; it may be empty. Keyword-only parameters are settings:
`model.reward={name: format, pattern: '[0-9]+'}`.
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
    """Return a registered reward with its settings.

    Raises:
        ZooError: an unknown name or setting.
    """
    registry.build("reward", config, "", "", "", where=where)  # validates name and settings
    settings = {"name": config} if isinstance(config, str) else dict(config)
    return partial(registry.get("reward", settings.pop("name")), **settings)


@register("reward", "exact")
def exact(prompt: str, completion: str, answer: str) -> float:
    """1 for the answer, ignoring surrounding white space."""
    return float(completion.strip() == answer.strip())


@register("reward", "similar")
def similar(prompt: str, completion: str, answer: str) -> float:
    """Similarity from 0 to 1: twice the matching characters over the total (Ratcliff & Metzener 1988)."""
    return SequenceMatcher(None, completion, answer, autojunk=False).ratio()


@register("reward", "arithmetic")
def arithmetic(prompt: str, completion: str, answer: str) -> float:
    """1 for the value of the sum, difference or product at the end of the prompt ("12+7="); the answer is ignored."""
    found = SUM.search(prompt)
    if found is None:
        return 0.0
    a, sign, b = int(found[1]), found[2], int(found[3])
    value = a + b if sign == "+" else a - b if sign == "-" else a * b
    return float(completion.strip() == str(value))


@register("reward", "python")
def python(prompt: str, completion: str, answer: str) -> float:
    """1 if prompt and completion together parse as Python, and the completion is not blank."""
    return float(bool(completion.strip()) and parses(prompt + completion))


@register("reward", "format")
def format_(prompt: str, completion: str, answer: str, *, pattern: str = r"\s*-?\d+\s*") -> float:
    """1 if a regular expression matches the whole completion."""
    try:
        return float(re.fullmatch(pattern, completion) is not None)
    except re.error as error:
        raise ZooError(f"pattern={pattern!r}: not a regular expression ({error}). Correct it.") from None
