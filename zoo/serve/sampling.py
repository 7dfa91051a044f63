"""Calls of a model's methods with checked options, labels and seeds."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.registry import unknown_name_message
from zoo.data.loader import make_generator
from zoo.models.options import method_options
from zoo.serve.describe import text_length
from zoo.serve.engine import Engine
from zoo.serve.errors import invalid
from zoo.serve.schema import shown
from zoo.serve.service import Service

T = TypeVar("T")
SEEDS = 2**32
PLAIN = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "list": (list,), "None": (type(None),)}


def fresh_seed(seed: int | None) -> int:
    """A seed, or a random one."""
    return secrets.randbelow(SEEDS) if seed is None else seed % SEEDS


def require(engine: Engine, ability: str) -> None:
    """Check that the model has an ability.

    Raises:
        APIError: it does not.
    """
    have = engine.model.abilities
    if ability not in have:
        raise invalid(
            f"model={engine.model_name}: without the ability {ability!r} (has: {', '.join(have)}). Choose another.",
            "model",
            "unsupported",
        )


def checked_options(method: Any, options: Mapping[str, Any], param: str = "options") -> dict[str, Any]:
    """Check options against the keyword-only parameters of a method.

    Raises:
        APIError: an unknown option, or a value of another type or out of bounds.
        ConfigError: a value that the model does not accept.
    """
    if not options:
        return {}  # to read a signature takes longer than a small network
    known = {option.name: option for option in method_options(method)}
    for name, value in options.items():
        at = f"{param}.{name}"
        if name not in known:
            raise invalid(f"{unknown_name_message('option', name, sorted(known))}.", at, "unknown_parameter")
        if not fits_type(known[name].type, value):
            raise invalid(f"{at}={shown(value)}: must be {known[name].type}. Correct it.", at, "invalid_type")
        known[name].check(value, param)
    return {name: value for name, value in options.items() if value is not None}


def fits_type(name: str, value: Any) -> bool:
    """Whether a JSON value is of a type that is named as in a signature, such as `float | None`."""
    if name == "Any":
        return value is None or isinstance(value, (str, bool, int, float))
    kinds = [part.strip().partition("[")[0] for part in name.split("|")]
    return any(
        type(value) in PLAIN.get(kind, ()) and not (isinstance(value, float) and abs(value) > 1e30) for kind in kinds
    )


def labels_of(model: Any, n: int, label: int | None) -> Tensor | None:
    """Equal class labels (n,); None draws them at random.

    Raises:
        APIError: no such class, or an unconditional model.
    """
    if label is None:
        return None
    if not model.conditional:
        raise invalid(f"label={label}: the model is unconditional. Leave it out.", "label")
    if not 0 <= label < model.spec.n_classes:
        raise invalid(f"label={label}: classes are from 0 to {model.spec.n_classes - 1}. Choose another.", "label")
    return torch.full((n,), label)


def condition_of(model: Any, n: int, label: int | None, prompt: str | None) -> Tensor | None:
    """Equal conditions of n samples: class labels (n,), or tokens (n, T) of a prompt; None leaves them to the model.

    Raises:
        APIError: no such class, a text that is too long, or a condition that the model does not have.
    """
    if prompt is None:
        return labels_of(model, n, label)
    if label is not None:
        raise invalid(f"label={label}: not together with a prompt. Leave one of them out.", "label")
    if text_length(model) is None:
        raise invalid("prompt: the model is not conditioned on texts. Leave it out.", "prompt", "unsupported")
    try:
        found: Tensor = model.text_condition([prompt])
    except DataError as error:
        raise invalid(f"prompt: {error}", "prompt") from None
    return found.expand(n, -1)


async def draw(
    service: Service,
    engine: Engine,
    *,
    n: int,
    label: int | None,
    prompt: str | None = None,
    seed: int,
    options: Mapping[str, Any],
    finish: Callable[[Tensor], T],
) -> T:
    """Samples (n, *shape), those of `model.sample` for this seed, as `finish` returns them in the model's thread.

    Requests are not sampled together: the noise of a request is that of its seed alone, drawn in one go.

    Raises:
        APIError: a request that does not fit the model or the limits.
    """
    require(engine, "sample")
    model: Any = engine.model
    check_size(service, n, n * model.spec.size)
    given = checked_options(model.sample, options)
    condition = condition_of(model, n, label, prompt)

    def run(model: Any) -> T:
        with torch.no_grad():
            drawn: Tensor = model.sample(n, condition=condition, generator=make_generator(seed), **given)
        return finish(drawn.cpu())

    return await engine.call(run)


def check_size(service: Service, n: int, numbers: int) -> None:
    """Check the size of an answer.

    Raises:
        APIError: over a limit.
    """
    limits = service.limits
    if n > limits.samples:
        raise invalid(f"n={n}: the most are {limits.samples}. Send several requests.", "n", "too_many")
    if numbers > limits.numbers:
        raise invalid(f"n={n}: an answer of {numbers:,} numbers is too large. Lower n.", "n", "too_many")
