"""Names to classes: what can be built, what its settings are, and building it.

    @register("model", "gan") class GAN(GenerativeModel):
        def __init__(self, spec: DataSpec, *, latent_dim: PositiveInt = 64, generator: Decoder = "auto"): ...

The signature is the schema: positional parameters are handed over by the zoo (the data's spec, sizes),
keyword-only ones are hyperparameters, and their annotations and defaults become the typed configuration.
Nothing here imports torch, Lightning or Hydra, and neither do `names` and `look`: what the zoo itself registers is
known from its source (`zoo.sketch`) until `get` imports it.
"""

import difflib
import fnmatch
import importlib
import inspect
import operator
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, GroupedMetadata

from zoo.errors import ZooError
from zoo.sketch import registered, sketch

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Written:
    """What a module of the zoo registers when it is imported, which nobody has needed yet."""

    module: str
    qualname: str


PACKAGES = ("zoo.nn", "zoo.models", "zoo.data")  # whose modules register things
_table: dict[str, dict[str, Callable[..., Any] | Written]] = {}
_discovered = False
revision = 0  # counts registrations, so that others can tell whether what they read is out of date
plugins: dict[str, types.ModuleType] = {}  # entry-point name -> imported module


@dataclass(frozen=True)
class Part:
    """Marks a hyperparameter that chooses another registered thing: `Annotated[Any, Part("decoder")]`.

    Its value is a registered name, or a mapping `{"name": ..., **hyperparameters}`.
    """

    kind: str


Encoder = Annotated[str | dict[str, Any], Part("encoder")]  # data (B, *shape) -> features (B, out_dim)
Decoder = Annotated[str | dict[str, Any], Part("decoder")]  # vector (B, in_dim) -> data (B, *shape)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Enter a class or function under `name`; its `registered_name` then says which it is.

    Raises:
        ValueError: the name is taken; both modules are named.
    """

    def enter(obj: T) -> T:
        global revision
        table = _table.setdefault(kind, {})
        known = table.get(name)
        if known is not None and _origin(known) != _origin(obj):
            raise _twice(kind, name, known, obj)
        if not isinstance(known, Written):
            revision += 1
        table[name] = obj
        obj.registered_name = name  # type: ignore[attr-defined]
        return obj

    return enter


def _origin(thing: Any) -> tuple[str, str]:
    """Module and own name."""
    return (thing.module, thing.qualname) if isinstance(thing, Written) else (thing.__module__, thing.__qualname__)


def _twice(kind: str, name: str, *things: Any) -> ValueError:
    first, second = (_origin(thing)[0] for thing in things)
    return ValueError(f"{kind} {name!r} is registered twice: by {first} and by {second}; rename one")


def discover() -> None:
    """Find the zoo's own models, networks and data, and import the plug-ins of the entry-point group `zoo.plugins`.

    A plug-in that fails to import is skipped with a warning that names its distribution.

    Raises:
        ValueError: somebody has registered a name of the zoo's own.
    """
    global _discovered, revision
    if _discovered:
        return
    _discovered = True
    revision += 1
    for package in PACKAGES:
        for kind, name, module, qualname in registered(package):
            known = _table.setdefault(kind, {}).setdefault(name, Written(module, qualname))
            if _origin(known) != (module, qualname):
                raise _twice(kind, name, known, Written(module, qualname))
    for point in entry_points(group="zoo.plugins"):
        try:
            plugins[point.name] = point.load()
        except Exception as error:  # a stranger's package must never stop ours, whatever it raises
            owner = point.dist.name if point.dist else "unknown distribution"
            warnings.warn(f"zoo plug-in {point.name!r} of {owner} is skipped: {error!r}", stacklevel=2)


def kinds() -> list[str]:
    """Every kind that something is registered under."""
    discover()
    return sorted(_table)


def names(kind: str, pattern: str = "*") -> list[str]:
    """Registered names that match a shell wildcard, sorted."""
    discover()
    return sorted(fnmatch.filter(_table.get(kind, {}), pattern))


def get(kind: str, name: str) -> Callable[..., Any]:
    """The class or function registered under a name, imported if it was not yet.

    Raises:
        KeyError: unknown name, with the nearest known ones.
    """
    found = _find(kind, name)
    if isinstance(found, Written):
        # A model may be outlined on the meta device meanwhile, where a module's own constants would lose their numbers.
        with sys.modules["torch"].device("cpu") if "torch" in sys.modules else nullcontext():
            importlib.import_module(found.module)
        found = _find(kind, name)
    if isinstance(found, Written):
        raise ImportError(f"{found.module} was imported, but has not registered the {kind} {name!r}")
    return found


def look(kind: str, name: str) -> Callable[..., Any]:
    """The same to read about, not to use: its sketch where the class itself is not imported.

    Raises:
        KeyError: unknown name, with the nearest known ones.
    """
    found = _find(kind, name)
    return sketch(found.module, found.qualname) if isinstance(found, Written) else found


def _find(kind: str, name: str) -> Callable[..., Any] | Written:
    discover()
    try:
        return _table[kind][name]
    except KeyError:
        raise KeyError(unknown(kind, name, names(kind))) from None


def unknown(kind: str, name: str, have: list[str]) -> str:
    """The sentence for a name that does not exist: "unknown model 'gna', did you mean 'gan'? (have: ...)"."""
    close = difflib.get_close_matches(str(name), have, n=2, cutoff=0.5)
    hint = f", did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"unknown {kind} {name!r}{hint} (have: {', '.join(have) or 'none'})"


@dataclass(frozen=True)
class Setting:
    """One hyperparameter, read off a signature."""

    name: str
    type: Any  # the annotation without `Annotated`
    default: Any  # inspect.Parameter.empty where it must be given
    bounds: tuple[BaseMetadata | GroupedMetadata, ...] = ()  # `Interval` is a group
    part: str | None = None  # the kind that this setting chooses from

    @property
    def choices(self) -> tuple[Any, ...]:
        """What a `Literal` allows; empty for every other type."""
        literals = [a for a in (self.type, *get_args(self.type)) if get_origin(a) is Literal]
        none = (None,) if type(None) in get_args(self.type) and literals else ()
        return tuple(choice for literal in literals for choice in get_args(literal)) + none

    def check(self, value: Any, where: str) -> None:
        """Raise `ZooError` where a value lies outside the choices or bounds."""
        if self.choices and value not in self.choices:
            close = difflib.get_close_matches(str(value), [str(c) for c in self.choices], n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            allowed = ", ".join(map(str, self.choices))
            raise ZooError(f"{where}.{self.name}={value!r} is not a choice: {hint}Take one of {allowed}.")
        limits = _limits(self.bounds)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not all(_LIMITS[k][0](number, limit) for k, limit in limits):
                allowed = " and ".join(f"{_LIMITS[k][1]} {limit}" for k, limit in limits)
                raise ZooError(f"{where}.{self.name}={value} is out of range: it must be {allowed}.")


def _limits(bounds: tuple[BaseMetadata | GroupedMetadata, ...]) -> list[tuple[str, float]]:
    """`Interval(ge=0, lt=1)` -> [("ge", 0), ("lt", 1)], and likewise for `Gt(0)`."""
    return [(k, limit) for b in bounds for k in _LIMITS if (limit := getattr(b, k, None)) is not None]


_LIMITS = {
    "gt": (operator.gt, "greater than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}


def settings(target: Callable[..., Any]) -> list[Setting]:
    """The keyword-only parameters of a constructor or function, in order."""
    init = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(init, include_extras=True)
    found = []
    for parameter in inspect.signature(init).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        annotation = hints.get(parameter.name, Any)
        metadata: list[Any] = []
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
        found.append(
            Setting(
                name=parameter.name,
                type=annotation,
                default=parameter.default,
                bounds=tuple(m for m in metadata if isinstance(m, (BaseMetadata, GroupedMetadata))),
                part=next((m.kind for m in metadata if isinstance(m, Part)), None),
            )
        )
    return found


def build(kind: str, config: str | Mapping[str, Any], *given: Any, where: str | None = None) -> Any:
    """Build a registered thing from its name, or from `{"name": ..., **hyperparameters}`.

    Only registered names can be reached, whatever the configuration says. `given` are the positional
    arguments that the zoo hands over; `where` is the place in the configuration that error messages name.

    Raises:
        ZooError: unknown name or setting, a value outside its choices or bounds, a setting left out.
    """
    where = where or kind
    if not isinstance(config, (str, Mapping)):
        raise ZooError(f"{where}={config!r} chooses nothing: take a name, one of {', '.join(names(kind))}.")
    config = {"name": config} if isinstance(config, str) else dict(config)
    try:
        target = get(kind, str(config.pop("name", None)))
    except KeyError as error:
        raise ZooError(f"{where}: {error.args[0]}.") from None
    known = {s.name: s for s in settings(target)}
    for name, value in config.items():
        if name not in known:
            raise ZooError(f"{where}: {unknown('setting', name, sorted(known))}.")
        known[name].check(value, where)
    missing = [s.name for s in known.values() if s.default is inspect.Parameter.empty and s.name not in config]
    if missing:
        raise ZooError(f"{where} needs a value for {', '.join(missing)}: give it as {where}.{missing[0]}=VALUE.")
    return target(*given, **config)
