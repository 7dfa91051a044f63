"""From signatures and YAML recipes to one composed configuration.

A recipe `conf/model/wgan_gp.yaml` is a delta on another recipe or on the typed schema that `zoo.registry` reads off a
constructor; `compose` gives Python the same configuration that the command line gets.
"""

import inspect
import types
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf

from zoo import registry
from zoo.recipes import CONF, recipe_folders, recipes

CHOOSERS = (
    "model",
    "data",
)  # kinds whose settings may choose parts: the groups model/generator, data/tokenizer ...


@dataclass
class Recipe:
    """How a model wants to be trained: `model.recipe`, which trainer and data refer to."""

    max_steps: int = 2000  # batches: becomes trainer.max_steps
    batch_size: int = 64  # becomes data.batch_size
    val_every: int = 250  # batches between validations: becomes trainer.val_check_interval
    precision: str = "32-true"  # becomes trainer.precision, unless the trainer has its own


def schema(name: str, target: Any, recipe: bool) -> type:
    """A dataclass with the names, types and defaults of a signature's hyperparameters (OmegaConf checks it).

    Args:
        name: registered.
        target: the class or function.
        recipe: can it say how it wants to be trained?
    """
    columns: list[tuple[str, Any, Any]] = [("name", str, field(default=name))]
    for setting in registry.settings(target):
        default = MISSING if setting.default is inspect.Parameter.empty else setting.default
        columns.append((setting.name, Any if setting.part else _plain(setting.type), _as_field(default)))
    if recipe:
        columns.append(("recipe", Recipe, field(default_factory=Recipe)))
    return make_dataclass(name, columns)


def _plain(annotation: Any) -> Any:
    """The nearest type that OmegaConf can check."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return type(args[0])
    if origin in (Union, types.UnionType):
        rest = [_plain(a) for a in args if a is not type(None)]
        if len(rest) > 1:
            return Any
        return rest[0] | None if type(None) in args and rest[0] is not Any else rest[0]
    if origin in (list, tuple) or annotation in (list, tuple):
        element = _plain(args[0]) if args else Any
        return list[element]  # type: ignore[valid-type]
    if origin is dict or annotation is dict:
        return dict[str, Any]
    return annotation if annotation in (int, float, str, bool) else Any


def _as_field(default: Any) -> Any:
    if isinstance(default, (list, tuple, dict)):
        return field(default_factory=lambda: dict(default) if isinstance(default, dict) else list(default))
    return field(default=default)


_stored = -1  # the registry's revision that Hydra knows


def store() -> None:
    """Hand every registered thing to Hydra: `model/schema/<name>` always, `model=<name>` where no YAML has the name.

    Cheap where nothing was registered since the last time.
    """
    global _stored
    registry.discover()
    if _stored == registry.revision:
        return
    _stored = registry.revision
    for kind in CHOOSERS:
        groups: dict[tuple[str, str], None] = {}  # of parts: where they are chosen, and their kind
        for name in registry.names(kind):
            parts = [s for s in registry.settings(registry.look(kind, name)) if s.part]
            _offer(kind, kind, name, [{s.name: s.default} for s in parts if isinstance(s.default, str)])
            groups.update({(f"{kind}/{s.name}", str(s.part)): None for s in parts})
        for group, part in groups:
            for choice in registry.names(part):
                _offer(group, part, choice)
    Plugins.instance().register(_PluginRecipes)
    OmegaConf.register_new_resolver("zoo.choices", choices, replace=True)


def _offer(group: str, kind: str, name: str, parts: Sequence[dict[str, str]] = ()) -> None:
    store, place = ConfigStore.instance(), f"{group}/schema"
    shelf: dict[str, Any] = store.repo
    for folder in place.split("/"):
        shelf = shelf.setdefault(folder, {})
    shelf[f"{name}.yaml"] = _Schema(f"{name}.yaml", OmegaConf.create(), place, None, "zoo", kind)
    if not any((folder / group / f"{name}.yaml").is_file() for folder in recipe_folders()):
        recipe = {"defaults": [{"schema@_here_": name}, *parts, "_self_"]}
        store.store(group=group, name=name, node=recipe, provider="zoo")


@dataclass
class _Schema(ConfigNode):
    """A schema in Hydra's store, read off the signature when Hydra takes a copy: most are never asked for."""

    kind: str

    def __copy__(self) -> ConfigNode:
        name = self.name.removesuffix(".yaml")
        node = OmegaConf.structured(schema(name, registry.look(self.kind, name), recipe=self.group == "model/schema"))
        return ConfigNode(self.name, node, self.group, self.package, self.provider)


class _PluginRecipes(SearchPathPlugin):
    """Makes the recipes of plug-in packages selectable by name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in recipe_folders()[1:]:
            search_path.append("zoo-plugin", f"file://{folder}")


def choices() -> str:
    """Every group that can be chosen from and its names, for `--help`."""
    groups = {kind: list(recipes(kind)) for kind in CHOOSERS}
    groups["trainer"] = sorted(path.stem for path in (CONF / "trainer").glob("*.yaml"))
    for kind in CHOOSERS:
        targets = [registry.look(kind, name) for name in registry.names(kind)]
        parts = {s.name: s.part for target in targets for s in registry.settings(target) if s.part}
        groups |= {f"{kind}/{name}": registry.names(part) for name, part in sorted(parts.items())}
    width = max(map(len, groups)) + 2
    return "\n".join(f"  {group:<{width}}{' '.join(names)}" for group, names in groups.items())


def compose(*overrides: str) -> DictConfig:
    """The configuration that `python train.py OVERRIDES` would run, resolved lazily; works inside a Hydra job too.

    Raises:
        ZooError: an override that does not fit, in one sentence.
    """
    from zoo.messages import explain

    store()
    try:
        if GlobalHydra.instance().is_initialized():
            return hydra_compose("config", overrides=list(overrides))
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose("config", overrides=list(overrides))
    except Exception as error:
        raise explain(error) from error


def plain(node: DictConfig) -> dict[str, Any]:
    """A configuration node as plain Python values, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def is_choice(kind: str, setting: str) -> bool:
    """Does a setting choose a part (`model/generator=`), for any registered thing of this kind?"""
    everything = (registry.settings(registry.look(kind, name)) for name in registry.names(kind))
    return any(s.part and s.name == setting for found in everything for s in found)
