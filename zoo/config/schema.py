"""Typed configuration schemas, read off constructor signatures."""

from dataclasses import field, make_dataclass
from typing import Any

from omegaconf import MISSING

from zoo.config.recipes import TrainingDefaults
from zoo.core.signature import REQUIRED, Entry


def schema(entry: Entry, recipe: bool) -> type:
    """Make a dataclass with the names, types and defaults of a signature's hyperparameters; OmegaConf checks it.

    Args:
        entry: of the registry.
        recipe: add `training`, see `TrainingDefaults`.
    """
    columns: list[tuple[str, Any, Any]] = [("name", str, field(default=entry.name))]
    for setting in entry.settings:
        default = MISSING if setting.default is REQUIRED else setting.default
        columns.append((setting.name, _type(setting.type), _as_field(default)))
    if recipe:
        columns.append(("training", TrainingDefaults, field(default_factory=TrainingDefaults)))
    return make_dataclass(entry.name, columns, init=False, repr=False, eq=False)  # OmegaConf reads the fields alone


def _type(name: str) -> Any:
    """The type that `zoo.core.signature.type_name` names."""
    if name.endswith(" | None"):
        return _type(name.removesuffix(" | None")) | None
    if name.startswith("list["):
        return list[_type(name[5:-1])]  # type: ignore[misc]
    return {"int": int, "float": float, "str": str, "bool": bool, "dict": dict[str, Any]}.get(name, Any)


def _as_field(default: Any) -> Any:
    if isinstance(default, (list, tuple, dict)):
        return field(default_factory=lambda: dict(default) if isinstance(default, dict) else list(default))
    return field(default=default)
