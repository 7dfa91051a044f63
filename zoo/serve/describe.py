"""Descriptions of models for programs and the page: abilities, spaces, and options by signature."""

import inspect
from typing import Any

from zoo.core.signature import REQUIRED
from zoo.core.spaces import Table, Tokens
from zoo.models.ability import ABILITIES
from zoo.models.options import RESERVED, method_options
from zoo.viz.render import is_heard

METHODS = {  # ability -> methods that requests call
    "sample": "sample",
    "generate": "generate",
    "denoising": "denoising",
    "interpolate": "interpolate",
    "edit": "edit",
    "inpaint": "inpaint",
    "colorize": "colorize",
    "super_resolve": "super_resolve",
    "fill": "fill",
    "caption": "caption",
    "translate": "translate",
    "stylize": "stylize",
    "predict_frames": "predict_frames",
    "likelihood": "likelihoods",
}
FIXED = ("max_new_tokens", "stop", "k")  # options that requests have a field for


def describe(model: Any, source: Any) -> dict[str, Any]:
    """Plain values about a model.

    Args:
        model: loaded.
        source: of the pool.
    """
    spec = model.spec
    return {
        "id": source.name,
        "created": source.created,
        "model": model.registered_name,
        "family": type(model).family,
        "summary": (type(model).__doc__ or "").split("\n")[0],
        "paper": type(model).paper,
        "data": spec.name,
        "space": described_space(spec.x),
        "source": described_space(model.source_space()) if "translate" in model.abilities else None,  # that it takes
        "condition": None if spec.condition is None else described_space(spec.condition),
        "conditional": bool(model.conditional),
        "prompt": text_length(model),  # tokens of the longest text that samples are conditioned on
        "abilities": {name: ABILITIES[name].label for name in model.abilities if name in ABILITIES},
        "parameters": sum(p.numel() for p in model.parameters()),
        "context": text_context(model),
        "tokens": getattr(model, "tokenizer", None) is not None,
        "heard": is_heard(spec.x),
        "options": {
            ability: [described_option(option) for option in method_options(getattr(model, method))]
            for ability, method in METHODS.items()
            if ability in model.abilities
        },
        "takes": {  # parameters that are not options, such as `between`
            ability: [name for name in inspect.signature(getattr(model, method)).parameters if name in RESERVED]
            for ability, method in METHODS.items()
            if ability in model.abilities
        },
    }


def described_space(space: Any) -> dict[str, Any]:
    """Name, shape and fields of a space, without its tokenizer; of a table, the kinds and categories of its columns."""
    values = {key: value for key, value in space.to_dict().items() if key not in ("tokenizer", "schema")}
    if isinstance(space, Table):
        values["columns"] = [{"name": c.name, "kind": c.kind, "categories": list(c.categories)} for c in space.columns]
    for key, value in values.items():
        if isinstance(value, dict):
            values[key] = {k: v for k, v in value.items() if k != "tokenizer"}
    return values | {"shape": list(space.shape)}


def described_option(option: Any) -> dict[str, Any]:
    """Name, type, default, bounds, choices and meaning of an option."""
    return {
        "name": option.name,
        "type": option.type,
        "required": option.default is REQUIRED,
        "default": None if option.default is REQUIRED else option.default,
        "bounds": dict(option.limits),
        "choices": list(option.choices),
        "help": option.help,
    }


def text_context(model: Any) -> int | None:
    """Tokens of the context of a language model."""
    return int(model.spec.tokens.length) if "generate" in model.abilities else None


def text_length(model: Any) -> int | None:
    """Tokens of the longest text that a model can be conditioned on; None for other models."""
    given = getattr(model, "given", None)
    return given.length if isinstance(given, Tokens) and given.tokenizer else None
