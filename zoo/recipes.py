"""What stands in the YAML files of recipes, as far as it can be told without Hydra: names, headers, the class meant."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from zoo import registry

_HERE = Path(__file__).resolve().parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"  # inside a wheel, or in a checkout


def recipe_folders() -> list[Path]:
    """`conf/` of the zoo, and the `conf/` folder beside the `__init__.py` of every plug-in package that has one."""
    return [CONF, *(folder / "conf" for folder in registry.plugin_folders() if (folder / "conf").is_dir())]


def recipes(kind: str) -> dict[str, Path | None]:
    """Everything that can follow `model=`: names, each with its YAML file or None where the signature is all."""
    found: dict[str, Path | None] = dict.fromkeys(registry.names(kind))
    for folder in recipe_folders():
        found.update({path.stem: path for path in (folder / kind).glob("*.yaml")})
    return dict(sorted(found.items()))


@cache
def header(path: Path) -> str:
    """The comment that opens a recipe's YAML file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def summary(kind: str, name: str, path: Path | None) -> str:
    """The first sentence of a recipe's header, or of the docstring."""
    text = (path and header(path)) or registry.peek(kind, registered_name(name, path)).doc
    return re.split(r"\.\s+(?=[A-Z])", " ".join(text.split()))[0].rstrip(".")


def registered_name(name: str, path: Path | None) -> str:
    """The class that a recipe is for: its defaults lead to the schema, at once or by way of other recipes."""
    if path is None:
        return name
    for entry in _defaults(path):
        group, choice = next(iter(entry.items())) if isinstance(entry, dict) else ("", str(entry))
        if group.partition("@")[0] == "schema":
            return str(choice)
        if isinstance(entry, str) and entry != "_self_":
            base = entry.partition("@")[0].rpartition(f"{path.parent.name}/")[2]
            if base.startswith("schema/"):
                return base.removeprefix("schema/")
            return registered_name(base, recipes(path.parent.name).get(base))
    return name


def _defaults(path: Path) -> list[Any]:
    import yaml

    parsed = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return list(parsed.get("defaults") or []) if isinstance(parsed, dict) else []
