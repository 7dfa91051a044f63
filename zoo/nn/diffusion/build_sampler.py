"""Build samplers by name."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from zoo.core import registry
from zoo.core.errors import ConfigError

T = TypeVar("T")


def build_sampler(kind: type[T], config: str | Mapping[str, Any], steps: int | None = None) -> T:
    """Build a registered sampler of one kind, of continuous or of discrete data.

    Args:
        kind: base class.
        config: name, or name and settings.
        steps: that replace those of the settings.

    Raises:
        ConfigError: an unknown sampler, or one of another kind.
    """
    given = {"name": config} if isinstance(config, str) else dict(config)
    built = registry.build("sampler", given | ({} if steps is None else {"steps": steps}), where="sampler")
    if not isinstance(built, kind):
        known = {name: cast(type, registry.get("sampler", name)) for name in registry.names("sampler")}
        have = [name for name, each in known.items() if issubclass(each, kind)]
        raise ConfigError(f"sampler={given['name']}: it samples other data. Choose {', '.join(have)}.")
    return built
