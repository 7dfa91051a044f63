"""Names, headers, values and classes of YAML recipes, without Hydra."""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from zoo.core import registry

_HERE = Path(__file__).resolve().parents[1]
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"  # inside a wheel, or in a checkout

CHOOSERS = ("model", "data")  # kinds whose settings may choose components: model/generator, data/tokenizer ...
LISTS = {"callbacks": "callback", "logger": "logger"}  # groups that allow several choices, with their kind
UNTYPED = ("trainer", "experiment")  # groups of YAML files only


@dataclass
class TrainingDefaults:
    """Training defaults of a recipe, `model.training`; the settings of trainer and data refer to them.

    Args:
        max_steps: batches; becomes trainer.max_steps.
        batch_size: becomes data.batch_size.
        val_check_interval: batches between validations; becomes trainer.val_check_interval.
        precision: becomes trainer.precision, unless the trainer has its own.
        ema_halflife: half-life of averaged weights in samples, by `callbacks=ema`; 0 trains without it.
        max_epochs: of a small training set; batches and the validation interval are lowered to it. 0: no limit.
    """

    max_steps: int = 2000
    batch_size: int = 64
    val_check_interval: int = 250
    precision: str = "32-true"
    ema_halflife: float = 0.0
    max_epochs: int = 0


def groups() -> dict[str, str | None]:
    """All config groups, such as `model/generator`, with the registry category of each."""
    found: dict[str, str | None] = {kind: kind for kind in CHOOSERS}
    found.update(dict.fromkeys(UNTYPED))
    found |= LISTS
    for kind in CHOOSERS:
        found.update({f"{kind}/{setting}": part for setting, part in sorted(registry.parts(kind).items())})
    return found


def top_level() -> list[str]:
    """Keys of a composed configuration, from `conf/config.yaml`."""
    chosen = [key for entry in written_defaults(CONF / "config.yaml") if isinstance(entry, dict) for key in entry]
    own = [key for key in _parsed(CONF / "config.yaml") if key not in ("defaults", "hydra")]
    return [*dict.fromkeys([*own, *(key for key in chosen if key.isidentifier() and key != "experiment")])]


def recipe_folders() -> list[Path]:
    """Folders of recipes: the built-in `conf/`, and `conf/` in each plug-in package."""
    return [CONF, *(folder / "conf" for folder in registry.plugin_folders() if (folder / "conf").is_dir())]


def recipes(group: str) -> dict[str, Path | None]:
    """Names in a group, each with its YAML file; None for a registered class without one."""
    kind = groups()[group] if group not in CHOOSERS else group
    found: dict[str, Path | None] = dict.fromkeys(registry.names(kind) if kind else ())
    return dict(sorted((found | files(group)).items()))


def files(group: str) -> dict[str, Path]:
    """YAML files of a group by name; of two with the same name, the one in the last folder."""
    found: dict[str, Path] = {}
    for folder in recipe_folders():
        try:
            found |= _listed(folder / group, (folder / group).stat().st_mtime_ns)
        except OSError:  # this folder does not have the group
            continue
    return found


@lru_cache(256)
def _listed(folder: Path, changed: int) -> dict[str, Path]:
    """YAML files of a folder by name, listed again when the folder has changed."""
    return {path.stem: path for path in folder.glob("*.yaml")}


@cache
def header(path: Path) -> str:
    """The comment at the top of a YAML file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):  # for Hydra
            lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def summary(group: str, name: str, path: Path | None) -> str:
    """The first sentence of a recipe's header, or of the docstring."""
    kind = groups()[group] if group not in CHOOSERS else group
    text = (path and header(path)) or (registry.peek(kind, registered_name(name, path)).doc if kind else "")
    return re.split(r"\.\s+(?=[A-Z])", " ".join(text.split()))[0].rstrip(".")


def registered_name(name: str, path: Path | None) -> str:
    """Name of a recipe's class, found through the defaults of the recipe and of its bases."""
    if path is None:
        return name
    for entry in written_defaults(path):
        group, choice = next(iter(entry.items())) if isinstance(entry, dict) else ("", str(entry))
        if group.partition("@")[0] == "schema":
            return str(choice)
        if isinstance(entry, str) and entry != "_self_":
            base = _base(entry, path)
            if base.startswith("schema/"):
                return base.removeprefix("schema/")
            return registered_name(base, _sibling(path, base))
    return name


def written(path: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Values that a recipe and its bases set, and their choices in other groups."""
    values: dict[str, Any] = {}
    chosen: dict[str, str] = {}
    if path is None:
        return values, chosen
    parsed = dict(_parsed(path))
    defaults = parsed.pop("defaults", None) or []
    for entry in [*defaults, *(["_self_"] if "_self_" not in defaults else [])]:
        if entry == "_self_":
            _merge(values, parsed)
        elif isinstance(entry, str):
            base = _base(entry, path)
            if not base.startswith("schema/"):
                below, also = written(_sibling(path, base))
                _merge(values, below)
                chosen |= also
        else:
            key, choice = next(iter(entry.items()))
            group = key.removeprefix("override ").removeprefix("optional ").partition("@")[0]
            if group.startswith("/"):
                chosen[group[1:]] = str(choice)
            elif group != "schema":
                values[group] = choice
    return values, chosen


def _merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        known = values.get(key)
        if isinstance(value, dict) and known is not None:
            values[key] = dict(known) if isinstance(known, dict) else {"name": known}
            _merge(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, dict) else value


def _base(entry: str, path: Path) -> str:
    return entry.partition("@")[0].rpartition(f"{path.parent.name}/")[2]


def _sibling(path: Path, name: str) -> Path | None:
    """The YAML file of another recipe in the same group."""
    group = next((path.parent.relative_to(f).as_posix() for f in recipe_folders() if path.is_relative_to(f)), None)
    return recipes(group).get(name) if group else None


def lineage(path: Path | None) -> list[Path]:
    """Files of a recipe and its bases, the lowest base first."""
    if path is None:
        return []
    bases = [_base(entry, path) for entry in written_defaults(path) if isinstance(entry, str) and entry != "_self_"]
    return [*(file for base in bases for file in lineage(_sibling(path, base))), path]


def written_defaults(path: Path) -> list[Any]:
    """Defaults list of a YAML file."""
    return list(_parsed(path).get("defaults") or [])


@cache
def _parsed(path: Path) -> dict[str, Any]:
    import yaml

    parsed = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return parsed if isinstance(parsed, dict) else {}
