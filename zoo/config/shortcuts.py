"""Shortcuts in Hydra's composition: the same configuration in less time.

Hydra builds the schema of everything that is stored, reads a YAML file again for each composition, and prepares
interpolations in every defaults list. It composes everything once more to read `hydra.mode`. Here a schema is built
when it is used, and a file is read again when it has changed. Choices are prepared only for a defaults list with
interpolations, and the mode is read only where something may set it.
"""

import os
from collections.abc import Callable
from copy import deepcopy
from functools import cache, wraps
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf import OmegaConf

from zoo.config.recipes import CONF

_OWN = {"pkg://hydra.conf", str(CONF), f"file://{CONF}", "structured://"}  # places that do not set `hydra.mode`
_FILES: dict[tuple[Any, ...], Any] = {}  # what Hydra has read, by place, time and size of the file
KEPT = 1000


class LazyNode(ConfigNode):
    """A stored configuration that is built at its first use.

    Args:
        name: of the configuration.
        group: group, separated by slashes.
        make: returns a dataclass or plain values.
        package: place in the composed configuration; None is that of the group.
    """

    def __init__(self, name: str, group: str, make: Callable[[], Any], package: str | None = None) -> None:
        self.make = cache(lambda: OmegaConf.structured(make()))
        later: Any = None
        super().__init__(name=f"{name}.yaml", node=later, group=group, package=package, provider="zoo")

    @property
    def node(self) -> Any:
        """The configuration; Hydra changes copies of it."""
        return self.__dict__["node"] if self.__dict__["node"] is not None else self.make()

    @node.setter
    def node(self, value: Any) -> None:
        self.__dict__["node"] = value


def store_lazily(name: str, group: str, make: Callable[[], Any], package: str | None = None) -> None:
    """Store a configuration with Hydra, as `ConfigStore.store` does, without building it."""
    place: dict[str, Any] = ConfigStore.instance().repo
    for part in group.split("/"):
        place = place.setdefault(part, {})
    node = LazyNode(name, group, make, package)
    place[node.name] = node


@cache  # once
def install() -> None:
    """Replace five functions of Hydra."""
    # Hydra copies the whole store for each composition, and each node again when it reads it: the second is enough.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    for source in sources():
        source.load_config = read_once(source.load_config)  # type: ignore[method-assign]
    prepare = defaults_list._create_interpolation_map
    defaults_list._create_interpolation_map = where_needed(prepare)
    Hydra.get_mode = where_set(Hydra.get_mode)  # type: ignore[method-assign]


def sources() -> list[type[ConfigSource]]:
    """The classes that read files and installed packages; Hydra imports their modules a second time, and uses those."""
    Plugins.instance()
    return [SourcesRegistry.instance().resolve(scheme) for scheme in ("file", "pkg")]


def read_once(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method `load_config` that gives a copy of what it has read, until the file changes.

    Files of installed packages do not change.
    """

    @wraps(read)
    def load_config(self: ConfigSource, config_path: str) -> Any:
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        key: tuple[Any, ...] = (type(self), self.path, self.provider, name)
        if self.scheme() == "file":
            try:
                file = os.stat(os.path.join(self.path, name))
            except OSError:
                return read(self, config_path)  # raises
            key += file.st_mtime_ns, file.st_size
        if key not in _FILES:
            if len(_FILES) >= KEPT:
                _FILES.clear()
            _FILES[key] = read(self, config_path)
        return deepcopy(_FILES[key])

    return load_config


def where_needed(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Return `_create_interpolation_map` that does nothing for a defaults list without interpolations."""

    @wraps(prepare)
    def choices(overrides: Any, entries: list[Any], self_added: bool) -> Any:
        used = any(not entry.is_self() and entry.is_interpolation() for entry in entries)
        return prepare(overrides, entries, self_added) if used else None

    return choices


def where_set(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return `get_mode` that composes nothing if neither an override nor a file may set `hydra.mode`.

    Other places than the built-in configuration may: a folder of the user, and a plug-in.
    """

    @wraps(read)
    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        places = {place.path for place in self.config_loader.get_search_path().get_path()}
        keys = (word.lstrip("+~").partition("=")[0] for word in overrides)
        sets = any(key in ("hydra", "hydra.mode") or key.startswith("hydra/") for key in keys)
        return read(self, config_name, overrides) if sets or not places <= _OWN else None

    return get_mode
