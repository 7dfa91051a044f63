"""Options of a model's methods: their keyword-only parameters."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from zoo.core.signature import Hyperparameter, hyperparameters, type_name
from zoo.nn.samplers.sampling_params import SamplingParams

RESERVED = ("between", "condition", "draft", "generator", "seed")  # parameters that are not options


def method_options(method: Callable[..., Any]) -> list[Hyperparameter]:
    """Options of a method; one with `**options` has those of `SamplingParams` too."""
    own = [option for option in hyperparameters(method) if option.name not in RESERVED]
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method).parameters.values()):
        have = {option.name for option in own}
        more = [
            Hyperparameter(f.name, type_name(f.type), f.default) for f in fields(SamplingParams) if f.name not in have
        ]
        own += more
    return own
