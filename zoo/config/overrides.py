"""Overrides as typed, before Hydra reads them: texts are taken literally, and names must exist."""

import os
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from zoo.config.recipes import CHOOSERS, LISTS, groups, recipes
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.core.signature import Hyperparameter

RUNS = ("resume", "init_from", "first_stage")  # settings that name a run
FOLDERS = (*RUNS, "hydra.run.dir", "hydra.sweep.dir")  # text settings that no class declares
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
PATHS = ("path", "cache", "dir", *RUNS)  # settings that an unset shell variable may leave empty
SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)")  # Hydra's functions


def quote_texts(arguments: Sequence[str]) -> list[str]:
    """Quote the values of text settings for Hydra: `data.path=it's 1,2` -> `data.path='it\\'s 1,2'`.

    Values in quotes stay as they are, and so does `null`. In a sweep, commas separate values.

    Args:
        arguments: overrides and flags.

    Raises:
        ConfigError: an empty path.
    """
    return [_quoted(word, sweeps(arguments)) for word in arguments]


def sweeps(arguments: Sequence[str]) -> bool:
    """Whether Hydra runs a sweep."""
    return "-m" in arguments or "--multirun" in arguments


def _quoted(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    plain = key.lstrip("+")
    if not equals or not is_text(plain) or value == "null" or QUOTED.fullmatch(value):
        return word
    if not value and plain.rpartition(".")[2] in PATHS:
        raise ConfigError(f"{word}: an empty path. Give a path, or leave {plain} out.")
    if plain in FOLDERS:
        return f"{key}={quote(os.path.expanduser(value))}"
    if not sweep:
        return f"{key}={quote(value)}"
    return word if SWEEP.fullmatch(value) else f"{key}={','.join(map(quote, value.split(',')))}"


def open_trainer(arguments: Sequence[str]) -> list[str]:
    """Let `trainer.KEY=VALUE` set any key of Lightning's trainer, as `++trainer.KEY`; keys are checked later."""
    return [f"++{word}" if word.startswith("trainer.") else word for word in arguments]


def is_text(key: str) -> bool:
    """Whether a setting is a text, such as a path, for every registered object that has it."""
    found = _settings(key)
    return key in FOLDERS or (bool(found) and all(s.type in ("str", "str | None") for s in found))


def _settings(key: str) -> list[Hyperparameter]:
    """Declarations of `data.path`, `data.tokenizer.path` or `callbacks.timer.duration`, one for each class."""
    group, *path = key.split(".")
    kind, names = group, registry.names(group) if group in CHOOSERS else []
    if group in LISTS and len(path) == 2:
        kind, names = LISTS[group], [name for name in registry.names(LISTS[group]) if name == path[0]]
        path = path[1:]
    elif len(path) == 2 and (part := registry.parts(kind).get(path[0]) if names else None):
        kind, names, path = part, registry.names(part), path[1:]
    if len(path) != 1:
        return []
    return [s for name in names for s in registry.peek(kind, name).settings if s.name == path[0]]


def quote(text: str) -> str:
    """Quote a text in Hydra's grammar, where a backslash is special only before a quote."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), text) + "'"


def unquoted(word: str) -> str:
    """Inverse of `quote_texts` for one override, where the text alone means the same."""
    key, _, value = word.partition("=")
    if not QUOTED.fullmatch(value) or not is_text(key.lstrip("+")):
        return word
    plain = f"{key}={text_of(word)}"
    return plain if quote_texts([plain]) == [word] else word


def text_of(word: str) -> str:
    """Value of an override, without the quotes of Hydra's grammar.

    Raises:
        HydraException: not an override.
    """
    return str(OverridesParser.create().parse_override(word).value())


def check_choices(arguments: Sequence[str]) -> None:
    """Check the names that overrides choose: `model=NAME`, `model/encoder=NAME`, `callbacks=[NAME,NAME]`.

    Raises:
        ConfigError: a name does not exist, a group gets several, or a setting is removed by `~`.
    """
    for word in arguments:
        if word.startswith("~"):
            raise ConfigError(f"{word}: settings cannot be removed. Give the setting another value, or leave it out.")
        key, equals, value = word.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if not equals or group not in groups() or SWEEP.fullmatch(value):
            continue
        listed = value.startswith("[") and value.endswith("]")
        names = [name.strip(" '\"") for name in value.strip("[]").split(",")] if value != "[]" else []
        several = group in LISTS or group == "experiment"
        if (listed and not several) or (len(names) > 1 and not listed and not sweeps(arguments)):
            remedy = "Use" if several else "Train them one after the other by -m"
            raise ConfigError(f"{word}: not one name. {remedy} {group}={'[A,B]' if several else 'A,B'}.")
        have = recipes(group)
        for name in names:
            if name not in have and not _is_untrusted(group, name):
                if group == "data" and "/" in name:
                    raise ConfigError(
                        f"data={name}: a path, not a name. Use data=NAME data.path={name}; see `zoo list`."
                    )
                unknown = registry.unknown_name_message(group.rpartition("/")[2], name, list(have))
                raise ConfigError(f"{unknown}. Use {group}=NAME.")


def _is_untrusted(group: str, name: str) -> bool:
    """Whether a recipe of `--config-dir` has this name, see `zoo.config.sandbox`."""
    node: Any = ConfigStore.instance().repo
    for part in f"{group}/{name}.yaml".split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return getattr(node, "provider", None) == "untrusted"
