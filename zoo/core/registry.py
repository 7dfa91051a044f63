"""Registry: look up classes by name, and build them from a configuration.

    @register("model", "gan") class GAN(Model):
        def __init__(self, spec: DataSpec, *, latent_dim: PositiveInt = 64, generator: Decoder = "auto"): ...

This module does not import torch, Lightning or Hydra. `names` and `peek` read the manifest of `zoo.core.discovery`;
`get` imports the module.
"""

import difflib
import fnmatch
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from zoo.core import discovery
from zoo.core.errors import ConfigError
from zoo.core.signature import REQUIRED, Entry, describe, hyperparameters, origin

T = TypeVar("T", bound=Callable[..., Any])

PACKAGES = ("zoo.nn", "zoo.data", "zoo.models", "zoo.viz", "zoo.evaluation", "zoo.training")  # modules that register
MOST_LISTED = 30  # names in a message that already has similar ones
_table: dict[str, dict[str, Callable[..., Any]]] = {}  # imported
_manifest: dict[str, dict[str, Entry]] | None = None  # None: not read yet
_described: dict[tuple[str, str], tuple[Any, Entry]] = {}  # descriptions of imported objects
_parts: dict[str, tuple[int, dict[str, str]]] = {}  # result of `parts`, with the generation that it belongs to
_folders: list[Path] = []  # of plug-in packages
generation = 0  # number of changes since the manifest


class DuplicateError(ConfigError, ValueError):
    """Two objects are registered under one name."""


def register(kind: str, name: str) -> Callable[[T], T]:
    """Register a class or function under `name`, which becomes its `registered_name`.

    Raises:
        DuplicateError: the name is taken; both modules are named.
    """

    def decorator(obj: T) -> T:
        global generation
        table = _table.setdefault(kind, {})
        indexed = (_manifest or {}).get(kind, {}).get(name)
        for known in (origin(table[name]) if name in table else None, indexed and indexed.origin):
            if known not in (None, origin(obj)):
                raise _duplicate(kind, name, known, origin(obj))
        if indexed is None or name in table:
            generation += 1
        table[name] = obj
        obj.registered_name = name  # type: ignore[attr-defined]
        return obj

    return decorator


def _duplicate(kind: str, name: str, *origins: Any) -> DuplicateError:
    first, second = (module for module, _ in origins)
    return DuplicateError(f"{kind} {name!r} is registered twice: by {first} and by {second}. Rename one of them.")


def discover() -> None:
    """Read the manifest of the built-in packages and of plug-ins (entry-point group `zoo.plugins`), once.

    Modules that fail to import are skipped with a warning.

    Raises:
        DuplicateError: two modules register one name.
    """
    global _manifest, _folders, generation
    if _manifest is not None:
        return
    found = discovery.manifest(PACKAGES, index)
    for failure in found["failures"]:
        if failure["duplicate"]:
            raise DuplicateError(failure["error"])
        warnings.warn(f"{failure['what']} is skipped: {failure['error']}", stacklevel=2)
    manifest: dict[str, dict[str, Entry]] = {}
    for values in found["entries"]:
        entry = Entry.from_dict(values)
        manifest.setdefault(entry.kind, {})[entry.name] = entry
        live = _table.get(entry.kind, {}).get(entry.name)
        if live is not None and origin(live) != entry.origin:
            raise _duplicate(entry.kind, entry.name, origin(live), entry.origin)
    _manifest, _folders = manifest, [Path(folder) for folder in found["folders"]]
    generation += 1


def index() -> dict[str, Any]:
    """Import all modules and plug-ins, and describe everything registered: the content of the manifest."""
    entries: dict[tuple[str, str], dict[str, Any] | None] = {}
    failures, folders = [], []
    for source in discovery.sources(PACKAGES):
        try:
            source.load()
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # also SystemExit: one failing module must not stop the others
            duplicate = isinstance(error, DuplicateError) and source.plugin is None
            text = str(error) if duplicate else repr(error)
            failures.append({"what": str(source), "error": text, "duplicate": duplicate})
        else:
            if source.plugin and (file := getattr(sys.modules[source.module], "__file__", None)):
                folders.append(str(Path(file).parent))
        for kind, name, target in [(kind, *item) for kind, table in _table.items() for item in table.items()]:
            if (kind, name) in entries:
                continue
            module = origin(target)[0]
            if any(parent not in sys.modules for parent in accumulate(module.split("."), "{}.{}".format)):
                del _table[kind][name]  # its module failed after the registration
                continue
            try:
                entries[kind, name] = describe(kind, name, target, source.module).to_dict()
            except Exception as error:  # unreadable annotation, or a default that is not plain
                entries[kind, name] = None
                failures.append({"what": f"{kind} {name!r} of {module}", "error": str(error), "duplicate": False})
    return {"entries": [e for e in entries.values() if e], "failures": failures, "folders": folders}


def plugin_folders() -> list[Path]:
    """Folders of plug-in packages, which may contain recipes in `conf/`."""
    discover()
    return _folders


@contextmanager
def isolated(*, empty: bool = False) -> Iterator[None]:
    """Undo all registrations at the end of the context, for tests; built-in ones stay.

    Args:
        empty: start without anything registered or discovered.
    """
    global _table, _manifest, generation
    before = _table, _manifest
    _table = {} if empty else {kind: dict(table) for kind, table in _table.items()}
    _manifest = {} if empty else _manifest
    generation += 1
    try:
        yield
    finally:
        inside, manifest = (
            [(kind, *item) for kind, table in _table.items() for item in table.items()],
            _manifest or before[1] or {},
        )
        (_table, _manifest), generation = before, generation + 1
        for kind, name, target in inside:  # modules are imported only once
            known = manifest.get(kind, {}).get(name)
            if known is not None and known.origin == origin(target):
                _table.setdefault(kind, {})[name] = target


def kinds() -> list[str]:
    """All categories that have registered objects."""
    discover()
    return sorted({*_table, *(_manifest or {})})


def names(kind: str, pattern: str = "*") -> list[str]:
    """Registered names that match a shell wildcard, sorted."""
    discover()
    return sorted(fnmatch.filter({*_table.get(kind, {}), *(_manifest or {}).get(kind, {})}, pattern))


def get(kind: str, name: str) -> Callable[..., Any]:
    """Return the registered class or function, imported if necessary.

    Raises:
        KeyError: unknown name; the message lists similar ones.
    """
    discover()
    entry = (_manifest or {}).get(kind, {}).get(name)
    if entry is not None and name not in _table.get(kind, {}):
        # Import on the CPU: under the meta device, module constants would lose their values.
        with sys.modules["torch"].device("cpu") if "torch" in sys.modules else nullcontext():
            for module in dict.fromkeys((entry.module, entry.source)):  # the class may be registered by another module
                importlib.import_module(module)
                if name in _table.get(kind, {}):
                    break
            else:
                raise ImportError(f"{entry.source} was imported, but has not registered the {kind} {name!r}")
    try:
        return _table[kind][name]
    except KeyError:
        raise KeyError(unknown_name_message(kind, name, names(kind))) from None


def peek(kind: str, name: str) -> Entry:
    """Return the description of a registered object, without importing it.

    Raises:
        KeyError: unknown name; the message lists similar ones.
    """
    discover()
    live = _table.get(kind, {}).get(name)
    if live is not None:
        if _described.get((kind, name), (None,))[0] is not live:
            _described[kind, name] = live, describe(kind, name, live)
        return _described[kind, name][1]
    try:
        return (_manifest or {})[kind][name]
    except KeyError:
        raise KeyError(unknown_name_message(kind, name, names(kind))) from None


def parts(kind: str) -> dict[str, str]:
    """Settings of all objects of a category that choose a component: `generator` -> `decoder`."""
    discover()
    if _parts.get(kind, (None,))[0] != generation:
        found = (setting for name in names(kind) for setting in peek(kind, name).settings)
        _parts[kind] = generation, {setting.name: setting.part for setting in found if setting.part}
    return dict(_parts[kind][1])


def close_names(name: str, have: Iterable[str], n: int = 2) -> list[str]:
    """Names that were perhaps meant: those of the same letters first, then the most similar ones."""
    names = sorted(have)
    swapped = [one for one in names if one != name and sorted(one) == sorted(name)]
    similar = difflib.get_close_matches(name, names, n=n, cutoff=0.5)
    return [*swapped, *(one for one in similar if one not in swapped)][:n]


def unknown_name_message(kind: str, name: str, have: list[str]) -> str:
    """Message for an unknown name: "unknown model 'gna', did you mean 'gan'? (have: ...)".

    Beside a similar name, more than `MOST_LISTED` others are counted.
    """
    close = close_names(str(name), have)
    if close and len(have) > MOST_LISTED:
        return f"unknown {kind} {name!r}, did you mean {' or '.join(map(repr, close))}? (there are {len(have)})"
    hint = f", did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"unknown {kind} {name!r}{hint} (have: {', '.join(have) or 'none'})"


def build(kind: str, config: str | Mapping[str, Any], *given: Any, where: str | None = None) -> Any:
    """Build a registered object from its name, or from `{"name": ..., **hyperparameters}`.

    Only registered names are reachable, whatever the configuration contains.

    Args:
        kind: category.
        config: name or mapping.
        *given: positional arguments.
        where: config key for error messages; None is the category.

    Raises:
        ConfigError: unknown name or setting, a value outside its choices or bounds, or a missing setting.
    """
    where = where or kind
    if not isinstance(config, (str, Mapping)):
        raise ConfigError(f"{where}={config!r}: not a name. Choose one of {', '.join(names(kind))}.")
    config = {"name": config} if isinstance(config, str) else dict(config)
    chosen = str(config.pop("name", None))
    try:
        target = get(kind, chosen)
    except KeyError as error:
        raise ConfigError(f"{where}: {error.args[0]}.") from None
    known = {s.name: s for s in hyperparameters(target)}
    for name, value in config.items():
        if name not in known:
            raise ConfigError(f"{where}: {unknown_name_message('setting', name, sorted(known))}.")
        known[name].check(value, where)
    missing = [s.name for s in known.values() if s.default is REQUIRED and s.name not in config]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} must be set. Add {where}.{missing[0]}=VALUE.")
    try:
        inspect.signature(target).bind(*given, **config)
    except TypeError as error:
        raise ConfigError(
            f"{where}: the {kind} {chosen!r} takes other positional arguments than the {len(given)} that it is given "
            f"({error}). Compare its constructor with that of another {kind}."
        ) from None
    return target(*given, **config)
