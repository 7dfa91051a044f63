"""Limits on untrusted files for the command line: recipes in `--config-dir`, and run folders.

Hydra calls the `_target_` of a configuration, sets environment variables, and writes to configured folders. It
therefore never reads an untrusted folder: recipes are read and checked here, and stored in Hydra's ConfigStore.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.config.recipes import CONF
from zoo.core.errors import ConfigError
from zoo.io.safe_yaml import read_text, read_yaml, yaml_error

GROUPS = ("model", "data", "trainer", "experiment")
GLOBAL = {"defaults", "model", "data", "trainer", "seed", "init_from"}  # keys that a `_global_` recipe may set
PACKAGE = re.compile(r"_global_|_group_|(_global_\.)?(model|data|trainer)(\.\w+)*")


# -- recipes -------------------------------------------------------------------------------------------------


@contextmanager
def untrusted_recipes(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Store the recipes of `--config-dir` folders in Hydra; yield the arguments without these folders.

    Raises:
        ConfigError: a recipe does more than describe model, data and trainer, or an argument shows Hydra a folder.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    for names in (("--cfg", "-c"), ("--config-name", "-cn"), ("--config-path", "-cp")):  # or -c would mean -cd
        parser.add_argument(*names, action="append", default=[])
    found, rest = parser.parse_known_args(list(arguments))
    rest += [word for value in found.cfg for word in ("--cfg", value)]
    rest += [word for value in found.config_name for word in ("--config-name", value)]
    seen, _ = get_args_parser().parse_known_args(rest)
    searched = any(re.match(r"[+~]*hydra\.searchpath\b|[+~]*hydra\s*=", line) for line in rest)
    if found.config_path or seen.config_dir or seen.config_path or searched:
        raise ConfigError(
            "--config-path, hydra.searchpath and abbreviations of --config-dir would bypass the checks of recipes. "
            "Use --config-dir=DIR."
        )
    files = {file: place for folder in found.config_dir for file, place in _files(Path(folder))}
    nodes = [(*place, *_checked(file, place[0])) for file, place in files.items()]
    store = ConfigStore.instance()
    for (group, name, _, _), file in zip(nodes, files, strict=True):
        if f"{name}.yaml" in _shelf(group) or (CONF / group / f"{name}.yaml").is_file():
            raise ConfigError(f"{file}: the zoo has a recipe {group}={name}. Give the file another name.")
    try:
        for group, name, package, node in nodes:
            store.store(name, node, group, package, "untrusted")
        yield rest
    finally:
        for group, name, *_ in nodes:
            _shelf(group).pop(f"{name}.yaml", None)


def _shelf(group: str) -> dict[str, Any]:
    shelf: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        shelf = shelf.get(part, {})
    return shelf


def _files(folder: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Find the recipes in a folder, each with its group and name."""
    if not folder.is_dir():
        raise ConfigError(f"--config-dir={folder}: not a folder. Name one that holds model/NAME.yaml.")
    if (folder / "hydra").exists():
        raise ConfigError(f"{folder / 'hydra'}: recipes must not set Hydra. Give its settings on the command line.")
    for group in GROUPS:
        for file in sorted((folder / group).rglob("*.yaml")):
            yield file, (file.parent.relative_to(folder).as_posix(), file.stem)


def _checked(file: Path, group: str) -> tuple[str | None, Any]:
    """Package and configuration of an untrusted recipe.

    Raises:
        ConfigError: it does more than describe model, data and trainer.
    """
    text = read_text(file)
    header = re.search(r"^\s*#\s*@package\s+(\S+)", text, re.MULTILINE)
    package = header[1] if header else None
    try:
        node = OmegaConf.create(text) if text.strip() else OmegaConf.create()
        values = OmegaConf.to_container(node, resolve=False)
    except (yaml.YAMLError, ValueError, OmegaConfBaseException, RecursionError) as error:
        raise yaml_error(file, error) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: a recipe must be a mapping. Write `key: value` lines.")
    if package is not None and not PACKAGE.fullmatch(package):
        raise ConfigError(f"{file}: @package {package} is not in model, data or trainer. Use `_global_` or no package.")
    odd = sorted(map(str, values.keys() - GLOBAL)) if package == "_global_" or group == "experiment" else []
    if odd or "schema" in group.split("/"):
        raise ConfigError(
            f"{file}: sets {odd[0] if odd else 'a schema'}, which can run programs or write anywhere. "
            f"Recipes are limited to model, data and trainer: give it on the command line."
        )
    if "hydra" in re.split(r"[^\w-]+", repr(values.get("defaults"))):
        raise ConfigError(f"{file}: its defaults choose parts of Hydra. Choose them on the command line.")
    if "://" in str(values.get("init_from")):
        raise ConfigError(f"{file}: init_from={values['init_from']} is an address. Give it on the command line.")
    _refuse(values, str(file))
    return package, node


def refuse_targets(values: Any, place: str) -> None:
    """Refuse `_target_` anywhere: objects are built by registered name only.

    Raises:
        ConfigError: there is one.
    """
    _refuse(values, place, interpolations=True)


def _refuse(value: Any, place: str, interpolations: bool = False) -> None:
    if isinstance(value, Mapping):
        for key, below in value.items():
            if key == "_target_":
                raise ConfigError(f"{place}: _target_ runs code. Only registered names are built: see `zoo list`.")
            _refuse(below, f"{place}.{key}", interpolations)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            _refuse(below, f"{place}.{number}", interpolations)
    elif isinstance(value, str) and not interpolations and _asks(value):
        raise ConfigError(
            f"{place}={value!r}: a recipe may refer to other settings only. Give the value on the command line, where "
            f"'${{oc.env:NAME}}' works."
        )


# -- runs ----------------------------------------------------------------------------------------------------


def read_saved_overrides(file: Path) -> list[str]:
    """Read the overrides of a run from its `overrides.yaml`.

    Raises:
        ConfigError: the file is damaged, or contains a flag, a setting of Hydra, or a value from the environment.
    """
    found = read_yaml(file)
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise ConfigError(f"{file} is damaged: not a list of overrides. Start a new run.")
    for line in found:
        reason = _refusal(line)
        if reason:
            raise ConfigError(
                f"{file} holds {line!r}, {reason}. Remove the line; if you trust it, give it after "
                f"resume={file.parent}."
            )
    return found


def _refusal(line: str) -> str:
    if line.startswith("-"):
        return "which is a flag, not an override"
    try:
        override = OverridesParser.create().parse_override(line)
    except HydraException:
        return "which is not an override"
    place = f"{override.key_or_group}@{override.package or ''}"
    if re.search(r"(^|[@:.])hydra\b", place):
        return "which sets Hydra, not the model, data or trainer"
    if _asks(line):
        return "which requires a value from outside the configuration"
    return "which runs code" if "_target_" in line else ""


def _asks(text: str) -> bool:
    """Whether a text contains an interpolation other than a plain reference to a setting."""
    return "${" in re.sub(r"\$\{(?!\.*hydra\b)[\w.\[\]/]+\}", "", text)


def refuse_links(folder: Path) -> None:
    """Refuse a run folder that contains links, since files would be written through them.

    Raises:
        ConfigError: there is one.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link, and a run would write through it. Replace it by its target.")
