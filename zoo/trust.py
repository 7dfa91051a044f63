"""What other people's files may say to the command line: recipes of any folder, and runs that somebody sent.

Hydra calls what `_target_` names, sets environment variables and writes where it is told. That is for what a user
types; a recipe may describe a model, its data and its training, and a run may repeat such a description. Checkpoints
are the business of `zoo.checkpoint`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from zoo.config import CONF, recipe_folders
from zoo.errors import ZooError

LARGEST = 2**18  # bytes of a YAML file; the largest of the zoo has 2,000
NODES = 20_000  # of a YAML file with all aliases written out
DEEPEST = 40  # lists and mappings in one another
# What Hydra's node may differ in from the zoo's own: notes of what was composed, and the values of a sweep.
_NOTES = ("name", "override_dirname", "id", "num", "config_name")
FREE = frozenset({"overrides", "runtime", "mode", "sweeper.params", *(f"job.{key}" for key in _NOTES)})


# -- runs ----------------------------------------------------------------------------------------------------


def repeated(file: Path) -> list[str]:
    """The overrides that a run was started with, from its `overrides.yaml`.

    Raises:
        ZooError: the file is damaged, or says anything but `key=value` about model, data and trainer: a flag,
            a setting of Hydra, a value from the environment.
    """
    found = read_yaml(file)
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise ZooError(f"{file} is damaged: it should be a list of overrides such as model=gan.")
    for line in found:
        reason = _refusal(line)
        if reason:
            raise ZooError(
                f"{file} holds {line!r}, {reason}: take the line out, and type it behind resume={file.parent} if you "
                f"trust it."
            )
    return found


def _refusal(line: str) -> str:
    if line.startswith("-"):
        return "which is a flag and no override"
    try:
        override = OverridesParser.create().parse_override(line)
    except HydraException:
        return "which is no override"
    place = f"{override.key_or_group}@{override.package or ''}"
    if re.search(r"(^|[@:.])hydra\b", place):
        return "which sets Hydra and not the model, data or trainer"
    if "${" in re.sub(r"\$\{[\w.\[\]/]+\}", "", line):  # references to other settings are fine
        return "which asks for a value from outside the configuration"
    return ""


def refuse_links(folder: Path) -> None:
    """Refuse a run folder in which a link would lead what is written somewhere else.

    Raises:
        ZooError: there is one.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ZooError(f"{path} is a link, and a run would write through it: replace it by what it points to.")


# -- YAML ----------------------------------------------------------------------------------------------------


def read_yaml(file: Path) -> Any:
    """The plain values of a YAML file that anybody may have written.

    Raises:
        ZooError: too large, too deep, or not YAML; nothing was built from it.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise ZooError(f"{file} cannot be read ({(error.strerror or str(error)).lower()}).") from error
    if len(raw) > LARGEST:
        raise ZooError(f"{file} has more than {LARGEST:,} bytes, which no recipe needs.")
    try:
        text = raw.decode()
        _refuse_bombs(text, file)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ZooError(f"{file} is not YAML of plain values ({' '.join(str(error).split())}).") from error


def _refuse_bombs(text: str, file: Path) -> None:
    """Count nodes as if every alias were written out, without building any."""
    sizes: dict[str | None, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]  # anchor and nodes of each collection that is not closed yet
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        anchor, n = open_.pop()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ZooError(f"{file} holds an alias *{event.anchor} to what is around it or nowhere.")
            open_.append((anchor, n + sizes[event.anchor]))
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1 + len(event.value) // 64
            open_.append((anchor, n + sizes[event.anchor]))
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor, None)
            open_ += [(anchor, n), (event.anchor, 1)]
        elif isinstance(event, yaml.CollectionEndEvent):
            sizes[anchor] = n
            outer, before = open_.pop()
            open_.append((outer, before + n))
        else:
            open_.append((anchor, n))
        if open_[-1][1] > NODES or len(open_) > DEEPEST:
            raise ZooError(f"{file} unfolds to more than {NODES:,} values or {DEEPEST} levels, which no recipe needs.")


# -- recipes -------------------------------------------------------------------------------------------------


@contextmanager
def guarding(typed: Sequence[str]) -> Iterator[None]:
    """While Hydra works, hold recipes that are not installed with the zoo or a plug-in to what recipes are for.

    What is refused is refused when it is composed, before Hydra acts on it.

    Args:
        typed: the command line's arguments, which may ask for anything.
    """
    foreign: set[str] = set()
    visible = set(re.findall(r"oc\.env:\s*['\"]?(\w+)", " ".join(typed)))
    files: Any = SourcesRegistry.instance().resolve("file")  # not the class that an import gives: plug-ins are copies
    load, read = ConfigLoaderImpl.load_configuration, files.load_config

    def composed(self: ConfigLoaderImpl, config_name: Any, overrides: list[str], run_mode: Any, **how: Any) -> Any:
        cfg = load(self, config_name, overrides, run_mode, **how)
        refuse_targets(cfg)
        found = strangers(cfg)
        if found:
            foreign.update(found)
            refuse_settings_of_hydra(cfg, _own(self, overrides, run_mode, load), found[0])
        return cfg

    def from_file(self: Any, config_path: str) -> Any:
        file = Path(self.path, self._normalize_file_name(config_path))
        if file.is_file() and not _installed(self.path):
            read_yaml(file)
        return read(self, config_path)

    def env(key: str, *default: Any) -> Any:
        if foreign and key not in visible:
            raise ZooError(
                f"a recipe in {min(foreign)} asks for the environment variable {key}: give the value on the command "
                f"line instead, where '${{oc.env:{key}}}' works."
            )
        return oc.env(key, *default)

    ConfigLoaderImpl.load_configuration = composed  # type: ignore[method-assign, assignment]
    files.load_config = from_file
    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
        files.load_config = read
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _installed(folder: str) -> bool:
    return Path(folder).resolve() in {path.resolve() for path in recipe_folders()}


def strangers(cfg: DictConfig) -> list[str]:
    """Folders of recipes that came in by --config-dir, --config-path or hydra.searchpath."""
    sources = [s for s in cfg.hydra.runtime.config_sources if s.schema in ("file", "pkg")]
    named = [s for s in sources if s.provider in ("main", "command-line") or s.provider.startswith("hydra.searchpath")]
    return [s.path for s in named if not _installed(s.path)]


def refuse_targets(cfg: DictConfig) -> None:
    """The zoo builds registered names; a dotted path anywhere but in Hydra's own node is a mistake or an attack.

    Raises:
        ZooError: there is one.
    """
    for name, node in OmegaConf.to_container(cfg, resolve=False).items():  # type: ignore[union-attr]
        place = None if name == "hydra" else _find_target(node, str(name))
        if place:
            raise ZooError(f"{place} names code to run, and the zoo builds registered names only: see `zoo list`.")


def _find_target(node: Any, place: str) -> str | None:
    below = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in below:
        found = f"{place}.{key}" if key == "_target_" else _find_target(value, f"{place}.{key}")
        if found:
            return found
    return None


def _own(loader: ConfigLoaderImpl, overrides: list[str], run_mode: Any, load: Callable[..., Any]) -> Any:
    """Hydra's node as the zoo, Hydra's plug-ins and what was typed make it, without other folders."""
    path = ConfigSearchPathImpl()
    for element in loader.config_search_path.get_path():
        if element.provider == "main":
            path.append("main", str(CONF))
        elif element.provider != "command-line":
            path.append(element.provider, element.path)
    typed = [
        line
        for line, override in zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True)
        if override.is_hydra_override() and override.get_key_element() != "hydra.searchpath"
    ]
    try:
        return load(ConfigLoaderImpl(path), "config", typed, run_mode, validate_sweep_overrides=False)
    except HydraException as error:
        raise ZooError(
            f"{', '.join(typed)} takes settings of Hydra from a folder of recipes, which may describe model, data "
            f"and trainer only: give their values on the command line."
        ) from error


def refuse_settings_of_hydra(cfg: DictConfig, own: DictConfig, folder: str) -> None:
    """Launchers, sweepers, callbacks, log handlers, environment and folders are not for recipes to set.

    Raises:
        ZooError: a recipe sets one; it says which.
    """
    found, expected = (OmegaConf.to_container(c.hydra, resolve=False) for c in (cfg, own))
    place = _difference(found, expected, "hydra")
    if place:
        raise ZooError(
            f"a recipe in {folder} sets {place}, which can run programs or write anywhere: recipes may describe "
            f"model, data and trainer only, so give it on the command line if you mean it."
        )


def _difference(found: Any, expected: Any, place: str) -> str | None:
    if place.removeprefix("hydra.") in FREE:
        return _find_target(found, place)
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        places = (
            _difference(found.get(k), expected.get(k), f"{place}.{k}") for k in [*found, *(expected.keys() - found)]
        )
        return next((p for p in places if p), None)
    return None if found == expected else place
