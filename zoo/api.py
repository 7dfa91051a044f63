"""Look up, describe and build models and data from Python."""

import fnmatch
import json
import re
import shutil
import textwrap
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config.recipes import (
    CHOOSERS,
    CONF,
    TrainingDefaults,
    groups,
    header,
    lineage,
    recipes,
    registered_name,
    summary,
    written,
    written_defaults,
)
from zoo.core import registry
from zoo.core.command import train_command
from zoo.core.errors import ConfigError
from zoo.core.signature import REQUIRED, Entry, parse_args_section, type_name
from zoo.core.spec import DataSpec
from zoo.hub.card import overview
from zoo.hub.pretrained import catalogue, pretrained_name

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from zoo.data.base import DataModule
    from zoo.hub.manifest import Manifest
    from zoo.models.base import Model


def list_models(pattern: str = "*") -> list[str]:
    """List the names of recipes and registered models that match a shell wildcard."""
    return fnmatch.filter(recipes("model"), pattern)


def list_data(pattern: str = "*") -> dict[str, str]:
    """List the names of data that match a shell wildcard, each with a summary."""
    have = recipes("data")
    return {name: summary("data", name, have[name]) for name in fnmatch.filter(have, pattern)}


def create_data(name: str, **overrides: Any) -> "DataModule":
    """Build the datamodule of a recipe, without reading its data: `create_data("digits", batch_size=128)`.

    The default `batch_size` is the one of `zoo info NAME`, and at most a quarter of the training set. The batch size of
    a model's recipe holds in `train.py` and `zoo.fit`.

    Raises:
        ConfigError: unknown name or setting, or a value that does not fit.
    """
    from zoo.config import compose

    cfg = compose.compose(f"data={name}", data=overrides)
    settings = compose.to_plain(cfg.data)
    own = {s.name: s.default for s in registry.peek("data", cfg.data.name).settings} | written(recipes("data")[name])[0]
    if "batch_size" not in overrides and own.get("batch_size") is not REQUIRED:
        settings["batch_size"] = own["batch_size"]  # in place of the default model's
    data: DataModule = registry.build("data", settings, where="data")
    data.usual_batch_size = None if "batch_size" in overrides else data.batch_size
    return data


def create_model(
    name: str, data: "str | DataSpec | DataModule | None" = None, *, pretrained: str | None = None, **overrides: Any
) -> "Model":
    """Build an untrained model, as `python train.py model=NAME data=DATA` does; or load a pretrained one.

    Args:
        name: a recipe or registered model.
        data: a datamodule, its name, or a spec; the recipe's data by default.
        pretrained: the data of a pretrained model, or its whole name (see `list_pretrained`). It has its own settings.
        **overrides: hyperparameters; a network by name (`generator="resnet"`) or as a mapping of its settings
            (`generator={"name": "resnet", "width": 64}`).

    Raises:
        ConfigError: unknown name or setting, a value that does not fit, or data that the model does not accept.
        CheckpointError: there is no such pretrained model, or its file was changed.
    """
    if pretrained is not None:
        return _pretrained(name, pretrained, {"data": data} if data is not None else overrides)
    from torch import nn

    from zoo.config import compose

    for setting, value in overrides.items():
        if isinstance(value, nn.Module):
            raise ConfigError(
                f"{setting}={type(value).__name__}: a module, which no checkpoint could restore. Register its class by "
                f"@zoo.register, and give {setting}=NAME."
            )
    source = [f"data={data}"] if isinstance(data, str) else []
    cfg = compose.compose(f"model={name}", *source, model=overrides)
    if data is None or isinstance(data, str):
        data = registry.build("data", compose.to_plain(cfg.data), where="data")
    spec = data if isinstance(data, DataSpec) else getattr(data, "spec", None)
    if not isinstance(spec, DataSpec):
        raise ConfigError(
            f"data={type(data).__name__}: neither a name, a DataSpec nor a DataModule. Give one; zoo.fit takes tensors."
        )
    settings = {k: v for k, v in compose.to_plain(cfg.model).items() if k != "training"}
    return registry.build("model", settings, spec, where="model")


def _pretrained(name: str, variant: str, given: dict[str, Any]) -> "Model":
    from zoo.interop.loading import load

    if given:
        raise ConfigError(
            f"pretrained={variant}: its settings are those of its training. Leave out {next(iter(given))}."
        )
    have = recipes("model")
    if name not in have:
        raise ConfigError(f"{registry.unknown_name_message('model', name, list(have))}.")
    found = pretrained_name(name, variant)
    if (model := catalogue()[found].model) != registered_name(name, have[name]):
        raise ConfigError(f"pretrained={variant}: {found} is a {model}, not a {name}. Choose another one.")
    return load(found)


def list_pretrained(pattern: str = "*") -> dict[str, "Manifest"]:
    """List the names of pretrained models that match a shell wildcard, each with its facts and metrics."""
    have = catalogue()
    return {name: have[name] for name in fnmatch.filter(have, pattern)}


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model, as `zoo info` prints them."""

    name: str
    summary: str  # one line
    paper: str  # link, or nothing
    family: str
    registered: str  # name of the class
    accepts: tuple[str, ...]  # kinds of data
    abilities: tuple[str, ...]

    @cached_property
    def settings(self) -> "DictConfig":
        """All settings under `model.`, with the values of the recipe."""
        settings: DictConfig = self._composed.model
        return settings

    @property
    def data(self) -> str:
        """Name of the recipe's default data."""
        return str(self._composed.data.name)

    @cached_property
    def _composed(self) -> "DictConfig":
        from zoo.config import compose

        return compose.compose(f"model={self.name}")

    def describe(self) -> str:
        """Facts and settings, as text."""
        return describe(f"model/{self.name}")


def model_info(name: str) -> ModelInfo:
    """Look up facts about a model, without building it.

    Raises:
        ConfigError: unknown name.
    """
    have = recipes("model")
    if name not in have:
        raise ConfigError(f"{registry.unknown_name_message('model', name, list(have))}.")
    entry = registry.peek("model", registered_name(name, have[name]))
    text = (have[name] and header(have[name])) or f"{entry.doc} {entry.attributes.get('paper', '')}"
    arxiv = re.search(r"\b(\d{4}\.\d{4,5})\b", text)
    return ModelInfo(
        name=name,
        summary=summary("model", name, have[name]),
        paper=f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else "",
        family=entry.family,
        registered=entry.name,
        accepts=_accepted(entry, have[name]),
        abilities=_labels(entry.attributes["abilities"]),
    )


def _accepted(entry: Entry, path: Path | None) -> tuple[str, ...]:
    """Kinds of data that a model and all networks of its recipe accept."""
    chosen = {setting.name: setting.default for setting in entry.settings if setting.part} | written(path)[0]
    accepted: tuple[str, ...] = entry.attributes["accepts"]
    for setting in entry.settings:
        choice = chosen.get(setting.name)
        name = choice.get("name") if isinstance(choice, dict) else choice
        if setting.part and not setting.pretrained and name in registry.names(setting.part):
            only = registry.peek(setting.part, str(name)).attributes.get("accepts", accepted)
            accepted = tuple(kind for kind in accepted if kind in only)
    return accepted


def _labels(abilities: dict[str, str]) -> tuple[str, ...]:
    """Labels of abilities, without those that another one implies."""
    implied = {"likelihood"} if "log_prob" in abilities else set()
    return tuple(label for name, label in abilities.items() if label and name not in implied)


def describe(name: str) -> str:
    """Describe anything that a configuration can choose: settings with types, bounds or choices, values and meaning.

    Args:
        name: of a model, data set, network, trainer or experiment; GROUP/NAME such as `encoder/auto` where ambiguous.

    Raises:
        ConfigError: unknown or ambiguous name.
    """
    group, leaf = _located(name)
    path, kind = recipes(group)[leaf], groups()[group]
    lines = [f"{leaf}: {summary(group, leaf, path)}"]
    values, chosen = written(path)
    rows: dict[str, str] = {}
    if group == "model":
        info = model_info(leaf)
        data = chosen.get("data", _parsed_default("data"))
        rows = {"family": info.family, "paper": info.paper, "learns": ", ".join(info.accepts)}
        rows |= {"can": ", ".join(info.abilities), "data": f"{data} unless data=NAME says otherwise"}
    elif chosen:
        rows = chosen
    lines += [f"  {key:<8} {text}" for key, text in rows.items() if text]
    place = group.replace("/", ".")
    if kind is None:
        prefix = "" if group == "experiment" else f"{place}."
        flat, notes = _flat(values), _notes(path)
        lines.append(f"  settings ({prefix}KEY=VALUE)")
        for key, value in flat.items():
            lines += _row(key, value, "", notes.get(key.rpartition(".")[2], ""))
        lines.append(f"  use it: {train_command(f'{group}={leaf}')}")
        return "\n".join(lines)
    entry = registry.peek(kind, registered_name(leaf, path))
    lines.append(f"  settings ({place}.KEY=VALUE)")
    for setting in entry.settings:
        value = values.get(setting.name, setting.default)
        kinds = [setting.bounds] if setting.bounds else []
        if setting.choices:
            kinds = [f"one of {', '.join(map(_yaml, setting.choices))}"]
        if setting.part:
            kinds = [f"one of {', '.join(recipes(f'{group}/{setting.name}'))}"] if group in CHOOSERS else [setting.part]
        elif not setting.choices and setting.type != "Any":
            kinds.insert(0, setting.type)
        if setting.default is not REQUIRED and _yaml(setting.default) != _yaml(value):
            kinds.append(f"default {_yaml(setting.default)}")
        lines += _row(setting.name, value, ", ".join(kinds), setting.help)
    if group == "model":
        meanings = parse_args_section(TrainingDefaults.__doc__ or "")
        for field in fields(TrainingDefaults):
            value = values.get("training", {}).get(field.name, field.default)
            default = f", default {field.default}" if value != field.default else ""
            lines += _row(f"training.{field.name}", value, f"{type_name(field.type)}{default}", meanings[field.name])
    lines.append(f"  {'train it' if group == 'model' else 'use it'}: {train_command(f'{group}={leaf}')}")
    return "\n".join(lines)


def _row(name: str, value: Any, kind: str, meaning: str) -> list[str]:
    """Format a setting: value and type in one line, the meaning below."""
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    first = f"    {name}: {_yaml(value)}"
    first = f"{first:<32}  {kind}" if kind else first
    wrapper = textwrap.TextWrapper(width, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)
    lines = wrapper.wrap(first)
    wrapper.initial_indent = wrapper.subsequent_indent = " " * 8
    return [*lines, *wrapper.wrap(meaning)]


def _yaml(value: Any) -> str:
    """Format a value as YAML."""
    if value is REQUIRED:
        return "(must be given)"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        return value if value.isprintable() and value.strip() else json.dumps(value)
    return json.dumps(value)


def _located(name: str) -> tuple[str, str]:
    """Split into group and name, and find the group of a name alone."""
    prefix, _, leaf = name.rpartition("/")
    found = {group: list(recipes(group)) for group in groups()}
    if prefix:
        kinds = groups()
        fitting = [g for g in found if prefix in (g, g.rpartition("/")[2])] or [g for g in found if prefix == kinds[g]]
        if not fitting:
            raise ConfigError(f"{registry.unknown_name_message('group', prefix, sorted(found))}.")
        if leaf not in found[fitting[0]]:
            raise ConfigError(f"{registry.unknown_name_message(prefix, leaf, found[fitting[0]])}.")
        return fitting[0], leaf
    fitting = [group for group, names in found.items() if leaf in names]
    if not fitting:
        close = registry.close_names(leaf, {name for names in found.values() for name in names})
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ConfigError(f"unknown name {leaf!r}.{hint} `zoo list` shows all models and data.")
    kinds = groups()
    if fitting[0] not in CHOOSERS and len({kinds[g] or g for g in fitting}) > 1:
        options = ", ".join(f"{group}/{leaf}" for group in fitting)
        raise ConfigError(f"{leaf}: an ambiguous name. Take one of {options}.")
    return fitting[0], leaf


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _parsed_default(group: str) -> str:
    """The choice of `conf/config.yaml`."""
    defaults = written_defaults(CONF / "config.yaml")
    return str(next(entry[group] for entry in defaults if isinstance(entry, dict) and group in entry))


def _notes(path: Path | None) -> dict[str, str]:
    """Comments after the values of a recipe and its bases, by key."""
    return {key: text for file in lineage(path) for key, text in _NOTE.findall(file.read_text(encoding="utf-8"))}


_NOTE = re.compile(r"^ *([\w.]+):[^#\n]*?\s#\s*(.+)$", re.MULTILINE)


def tables() -> str:
    """Format all models and data as Markdown; a test compares `.github/docs/models.md` with it."""
    rows = ["| model | description | learns | can |", "|---|---|---|---|"]
    infos = [model_info(name) for name in list_models()]
    for info in sorted(infos, key=lambda i: (i.family, i.name != i.registered, i.name)):
        paper = f" ([paper]({info.paper}))" if info.paper.startswith("https") else ""
        rows.append(
            f"| `{info.name}` | {info.summary}{paper} | {', '.join(info.accepts)} | {', '.join(info.abilities)} |"
        )
    rows += ["", "| data | description |", "|---|---|"]
    rows += [f"| `{name}` | {summary} |" for name, summary in list_data().items()]
    return "\n".join(rows)


def pretrained_table() -> str:
    """Format all pretrained models as Markdown; a test compares `.github/docs/pretrained.md` with it."""
    return overview(catalogue())
