"""Options of a model's methods: their keyword-only parameters, and words that set them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.config.schema import schema
from zoo.core.errors import ConfigError
from zoo.core.escapes import read_escapes
from zoo.core.registry import unknown_name_message
from zoo.core.signature import Entry, Hyperparameter, hyperparameters, type_name
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


def parse_options(method: Callable[..., Any], words: Sequence[str], name: str) -> dict[str, Any]:
    """Parse `KEY=VALUE` words as arguments of a method, checked against its keyword-only parameters.

    A method with `**options` accepts those of `SamplingParams` too.

    Raises:
        ConfigError: an unknown option, or a value of another type or out of bounds.
    """
    known = {option.name: option for option in method_options(method)}
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals:
            raise ConfigError(f"{word}: not an option. Write KEY=VALUE, such as temperature=0.8.")
        if key not in known:
            have = sorted(known)
            raise ConfigError(f"{key}: {unknown_name_message(f'option of {name}', key, have)}.")
    entry = Entry("option", name, "", "", "", tuple(known.values()), {}, ())
    kinds = {key: option.type for key, option in known.items()}
    texts = [word for word in words if kinds[word.partition("=")[0]] in ("str", "list[str]")]
    given = OmegaConf.from_dotlist([word for word in words if word not in texts])
    for key, _, text in (word.partition("=") for word in texts):
        given[key] = _read_text(text, kinds[key])
    for option, value in given.items():
        if known[str(option)].type == "bool" and isinstance(value, (int, float)) and value not in (0, 1):
            raise ConfigError(f"{option!s}={value}: not true or false, and OmegaConf would read any number as true.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema(entry, recipe=False)), given)
        values: Any = OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0].rstrip('.')}.") from None
    found = {}
    for key in dict.fromkeys(word.partition("=")[0] for word in words):
        value = values[key]
        if isinstance(value, str) and isinstance(known[key].default, (list, tuple)):
            value = [value]
        known[key].check(value, name)
        found[key] = [unescaped(item) for item in value] if isinstance(value, list) else unescaped(value)
    return found


def _read_text(text: str, kind: str) -> Any:
    """Read a text, which may be quoted, or a list of texts; words such as `yes` and `1` stay texts."""
    try:
        value = yaml.load(text, yaml.BaseLoader)  # makes texts, lists and mappings only
    except yaml.YAMLError:
        return text
    if kind == "list[str]":
        return value if isinstance(value, list) else [text]
    return value if isinstance(value, str) and text[:1] in ("'", '"') else text


def unescaped(value: Any) -> Any:
    """Read escapes, such as that of a line feed, in a text that was typed."""
    return read_escapes(value) if isinstance(value, str) else value
