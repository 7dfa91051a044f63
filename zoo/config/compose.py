"""Composition of signatures and YAML recipes to one configuration.

A recipe is a delta on another recipe, or on the typed schema of a constructor (`zoo.config.schema`). `compose` gives
Python the same configuration as the command line.
"""

import json
from collections.abc import Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.config.overrides import check_choices, quote, quote_texts
from zoo.config.recipes import (
    CHOOSERS,
    CONF,
    LISTS,
    TrainingDefaults,
    files,
    groups,
    recipe_folders,
    recipes,
    top_level,
)
from zoo.config.schema import schema
from zoo.config.shortcuts import install, store_lazily
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.core.signature import Entry

GIVEN = "_zoo_overrides"  # attribute of a composed configuration
_stored = -1  # registry.generation at the last registration with Hydra


def register_with_hydra() -> None:
    """Store schemas of all registered objects in Hydra, and recipes of those without a YAML file.

    Does nothing if nothing was registered since the last call.
    """
    global _stored
    registry.discover()
    if _stored == registry.generation:
        return
    _stored = registry.generation
    for kind in CHOOSERS:
        written = files(kind)
        for name in registry.names(kind):
            entry = registry.peek(kind, name)
            parts = [s for s in entry.settings if s.part]
            _offer(kind, entry, written, [{s.name: s.default} for s in parts if isinstance(s.default, str)])
        for setting, part in registry.parts(kind).items():
            written = files(f"{kind}/{setting}")
            for name in registry.names(part):
                _offer(f"{kind}/{setting}", registry.peek(part, name), written)
    for group, kind in LISTS.items():
        for name in registry.names(kind):
            store_lazily(name, group, partial(schema, registry.peek(kind, name), recipe=False), f"{group}.{name}")
    Plugins.instance().register(_PluginRecipes)
    install()
    OmegaConf.register_new_resolver("zoo.choices", choices, replace=True)


def _offer(group: str, entry: Entry, written: Container[str], parts: Sequence[dict[str, str]] = ()) -> None:
    """Store the schema of a registered object, and its recipe unless there is a file of that name."""

    def typed() -> Any:
        node = schema(entry, group == "model")
        if entry.kind != "optimizer":
            return node
        open_: DictConfig = OmegaConf.structured(node)  # also for a recipe's settings of another optimizer
        return OmegaConf.create({key: open_._get_node(key) for key in open_})  # (`build_config`)

    store_lazily(entry.name, f"{group}/schema", typed)
    if entry.name not in written:
        store_lazily(entry.name, group, lambda: {"defaults": [{"schema@_here_": entry.name}, *parts, "_self_"]})


class _PluginRecipes(SearchPathPlugin):
    """Adds the recipes of plug-in packages to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in recipe_folders()[1:]:
            search_path.append("zoo-plugin", f"file://{folder}")


def choices() -> str:
    """List the groups and their names, for `--help`; a long list is not repeated."""
    found = {group: " ".join(recipes(group)) for group in groups() if group != "experiment"}
    first = {names: group for group, names in reversed(found.items())}
    width = max(map(len, found)) + 2
    lines = []
    for group, names in found.items():
        repeated = len(names) > 100 and first[names] != group
        lines.append(f"  {group:<{width}}{f'as {first[names]}' if repeated else names}")
    return "\n".join(lines)


def compose(*overrides: str, **settings: Mapping[str, Any]) -> DictConfig:
    """Compose the configuration of `python train.py OVERRIDES`, also inside a Hydra job.

    Args:
        *overrides: as on the command line.
        **settings: Python values by group, `model={"latent_dim": 32}`; a component by name or as a mapping.

    Raises:
        ZooError: an override that does not fit.
    """
    from zoo.config.error_messages import to_user_error

    register_with_hydra()
    values = [(group, *item) for group, of in settings.items() for item in of.items()]
    chosen = quote_texts(overrides)
    check_choices(chosen)
    for group, key, value in values:
        name = value.get("name") if isinstance(value, Mapping) else value
        if is_component(group, key) and name is not None:
            chosen.append(f"{group}/{key}={name}")
    initialized = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if initialized else initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra_compose("config", overrides=chosen)
        for group, key, value in values:
            if not is_component(group, key) or isinstance(value, Mapping):
                OmegaConf.update(cfg, f"{group}.{key}", value)
        for group, key, value in values:
            if isinstance(value, Mapping) or not is_component(group, key):
                chosen += _words(f"{group}.{key}", value)
        cfg.__dict__[GIVEN] = chosen
        return cfg
    except Exception as error:
        explained = to_user_error(error)
        if explained is error:
            raise
        raise explained from None


def _words(place: str, value: Any) -> list[str]:
    """A Python value as overrides: one for each key of a mapping but the name, which is a separate choice."""
    if isinstance(value, Mapping):
        return [word for key, item in value.items() if key != "name" for word in _words(f"{place}.{key}", item)]
    return [f"{place}={quote(value) if isinstance(value, str) else json.dumps(value)}"]


def typed_overrides(cfg: DictConfig) -> list[str]:
    """Overrides that a configuration was composed with, by `compose` or on the command line."""
    given = cfg.__dict__.get(GIVEN)
    if given is None and HydraConfig.initialized():
        given = list(HydraConfig.get().overrides.task)
    return given or []


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that nothing reads: `+nope=1` adds any key to the configuration.

    Raises:
        ConfigError: there is one outside the groups, which check their own.
    """
    known = {"": top_level(), "model.training": [f.name for f in fields(TrainingDefaults)]}
    for place, have in known.items():
        node = OmegaConf.select(cfg, place) if place else cfg
        for key in map(str, node or ()):
            if key not in have:
                where = f"{place}.{key}" if place else key
                raise ConfigError(f"{where}: {registry.unknown_name_message('setting', key, sorted(have))}.")


def to_plain(node: DictConfig) -> dict[str, Any]:
    """Convert a configuration node to plain Python values, interpolations resolved.

    Raises:
        ConfigError: a setting without a default has no value.
    """
    from zoo.config.error_messages import to_user_error

    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise to_user_error(error) from None


def is_component(kind: str, setting: str) -> bool:
    """Whether a setting chooses a component (`model/generator=`), for any registered object of this kind."""
    return setting in registry.parts(kind)
