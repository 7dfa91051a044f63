"""Signatures of registered classes and functions as plain values: settings, bounds, choices, documentation.

The signature is the schema. Positional parameters are passed by the zoo (data spec, sizes); keyword-only parameters are
hyperparameters. All values are JSON-serialisable, so reading them does not require torch.
"""

import difflib
import inspect
import math
import operator
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval

from zoo.core.errors import ConfigError

LIBRARIES = ("builtins", "abc", "typing", "torch", "pytorch_lightning", "lightning", "lightning_fabric")


class _Required:
    """Default of a setting that must be given."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True)
class Component:
    """Marks a hyperparameter that chooses another registered object: `Annotated[Any, Component("decoder")]`.

    Its value is a registered name, or a mapping `{"name": ..., **hyperparameters}`.

    Args:
        kind: registry category.
        pretrained: `init_from=RUN` sets the component to the model of that run; see `zoo.training.warm_start`.
    """

    kind: str
    pretrained: bool = False


@dataclass(frozen=True)
class Hyperparameter:
    """A hyperparameter of a signature."""

    name: str
    type: str  # that OmegaConf can check: "int", "float | None", "list[int]", "Any" ...
    default: Any  # REQUIRED if it must be set
    limits: tuple[tuple[str, float], ...] = ()  # (("ge", 0), ("lt", 1))
    choices: tuple[Any, ...] = ()  # of a `Literal`
    part: str | None = None  # category of the component that this setting chooses
    pretrained: bool = False  # set by `init_from`
    help: str = ""  # from the section `Args:` of the docstring

    def check(self, value: Any, where: str) -> None:
        """Check a value against its type, as far as numbers go, its choices and bounds.

        Raises:
            ConfigError: the value is not allowed.
        """
        if isinstance(value, str) and set(self.type.split(" | ")) <= {"int", "float", "bool", "None"}:
            raise ConfigError(f"{where}.{self.name}={value!r}: of the wrong type. Give a value of type {self.type}.")
        if self.type.startswith("list["):
            texts = self.type.startswith("list[str]")
            fits = isinstance(value, (list, tuple)) and (not texts or all(isinstance(item, str) for item in value))
            if not fits and not (value is None and self.type.endswith("None")):
                of = "texts" if texts else "values"
                raise ConfigError(
                    f"{where}.{self.name}={value!r}: of the wrong type. Give a list of {of}: "
                    f"{where}.{self.name}=[{value if isinstance(value, str) else 'VALUE'}]."
                )
        if self.choices and value not in self.choices:
            close = difflib.get_close_matches(str(value), [str(c) for c in self.choices], n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            allowed = ", ".join(map(str, self.choices))
            raise ConfigError(f"{where}.{self.name}={value!r} is not a choice: {hint}Take one of {allowed}.")
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not all(_LIMITS[k][0](number, limit) for k, limit in self.limits):
                raise ConfigError(f"{where}.{self.name}={value} is out of range: it must be {self.bounds}.")
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{where}.{self.name}={value}: not a finite number. Give a finite one.")
            check_integer(f"{where}.{self.name}", number)

    @property
    def bounds(self) -> str:
        """Bounds in words: "at least 0 and less than 1"."""
        # Without ".0": `typing` merges Annotated[float, Gt(0)] of another library with Gt(0.0) here.
        return " and ".join(f"{_LIMITS[k][1]} {str(limit).removesuffix('.0')}" for k, limit in self.limits)


def check_integer(name: str, number: Any) -> None:
    """Check that an integer fits into the 64 bits that torch and NumPy count with.

    Raises:
        ConfigError: it does not.
    """
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        raise ConfigError(f"{name}={number}: more than 64 bits hold. Give a number nearer to 0.")


_LIMITS = {
    "gt": (operator.gt, "greater than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}


@dataclass(frozen=True)
class Entry:
    """Description of a registered class or function in plain values, as in the manifest."""

    kind: str
    name: str
    module: str
    qualname: str
    doc: str
    settings: tuple[Hyperparameter, ...]
    attributes: Mapping[str, Any]  # plain class attributes, including inherited ones; classes by name
    methods: tuple[str, ...]  # public, without those of torch and Lightning
    source: str = ""  # module whose import registers it

    @property
    def family(self) -> str:
        """Group of models that it belongs to."""
        return str(self.attributes.get("family", ""))

    @property
    def origin(self) -> tuple[str, str]:
        """Module and qualified name; redefinitions of one object have equal origins."""
        return self.module, self.qualname

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tuples and missing defaults are marked."""
        settings = [{k: v for k, v in asdict(s).items() if k != "default"} for s in self.settings]
        for values, setting in zip(settings, self.settings, strict=True):
            if setting.default is not REQUIRED:
                values["default"] = _encode(setting.default)
        return {**asdict(self), "settings": settings, "attributes": {k: _encode(v) for k, v in self.attributes.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Entry":
        """Inverse of `to_dict`, also after JSON."""
        settings = []
        for s in values["settings"]:
            given = {"default": _decode(s["default"])} if "default" in s else {"default": REQUIRED}
            limits = tuple((k, limit) for k, limit in s["limits"])
            settings.append(Hyperparameter(**{**s, **given, "limits": limits, "choices": tuple(s["choices"])}))
        attributes = {k: _decode(v) for k, v in values["attributes"].items()}
        return cls(
            **{**values, "settings": tuple(settings), "attributes": attributes, "methods": tuple(values["methods"])}
        )


def _encode(value: Any) -> Any:
    """Encode a plain value for JSON: {"tuple": [...]} for a tuple, {"dict": [[key, value], ...]} for a dictionary.

    Raises:
        TypeError: not a plain value.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (tuple, list)):
        return {type(value).__name__: [_encode(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[_encode(k), _encode(v)] for k, v in value.items()]}
    raise TypeError(f"{value!r} is not a plain value.")


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "dict":
        return {_decode(k): _decode(v) for k, v in items}
    return tuple(map(_decode, items)) if kind == "tuple" else [_decode(v) for v in items]


def describe(kind: str, name: str, target: Callable[..., Any], source: str = "") -> Entry:
    """Describe a class or function in plain values.

    Raises:
        ConfigError: a default that is not a plain value.
    """
    found = hyperparameters(target)
    for setting in found:
        try:
            _encode(None if setting.default is REQUIRED else setting.default)
        except TypeError as error:
            raise ConfigError(
                f"{kind} {name!r}: {setting.name}={error} Take None, a number, text, a list or a dictionary."
            ) from None
    attributes, methods = _members(target) if inspect.isclass(target) else ({}, ())
    return Entry(
        kind, name, *origin(target), inspect.getdoc(target) or "", tuple(found), attributes, tuple(methods), source
    )


def origin(target: Any) -> tuple[str, str]:
    """Return module and qualified name."""
    module = getattr(target, "__module__", None) or type(target).__module__
    return module, getattr(target, "__qualname__", None) or type(target).__qualname__


def _members(target: type) -> tuple[dict[str, Any], list[str]]:
    """Plain attributes and method names of a class and its bases outside `LIBRARIES`."""
    attributes: dict[str, Any] = {}
    methods = []
    own = [base for base in target.__mro__ if base.__module__.partition(".")[0] not in LIBRARIES]
    for key in sorted({key for base in own for key in vars(base) if not key.startswith("_")}):
        value = inspect.getattr_static(target, key)
        if inspect.isroutine(value):
            methods.append(key)
            continue
        names = tuple(map(_name, value)) if type(value) is tuple else value
        try:
            attributes[key] = _decode(_encode(names))
        except TypeError:
            continue  # properties, tensors, modules
    return attributes, methods


def _name(value: Any) -> Any:
    return getattr(value, "registered_name", value.__name__) if inspect.isclass(value) else value


def hyperparameters(target: Callable[..., Any]) -> list[Hyperparameter]:
    """Keyword-only parameters of a constructor or function, in order."""
    init = target.__init__ if inspect.isclass(target) else target
    parameters = inspect.signature(init).parameters.values()
    hints = get_type_hints(init, include_extras=True)
    documents = [vars(c).get("__doc__") for c in target.__mro__] if inspect.isclass(target) else [target.__doc__]
    descriptions: dict[str, str] = {}
    for text in reversed(documents):
        descriptions |= parse_args_section(text or "")
    found = []
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        annotation = hints.get(parameter.name, Any)
        metadata: list[Any] = []
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
        elif of := _annotated_or_none(annotation):
            annotation, metadata = of[0] | None, [m for m in of[1:] if not isinstance(m, Component)]  # no group
        component = next((m for m in metadata if isinstance(m, Component)), None)
        found.append(
            Hyperparameter(
                name=parameter.name,
                type="Any" if component else type_name(annotation),
                default=REQUIRED if parameter.default is parameter.empty else parameter.default,
                limits=bounds_of(metadata),
                choices=_choices(annotation),
                part=component.kind if component else None,
                pretrained=component is not None and component.pretrained,
                help=descriptions.get(parameter.name, ""),
            )
        )
    return found


def _annotated_or_none(annotation: Any) -> tuple[Any, ...]:
    """Type and metadata of `Annotated[type, ...] | None`; empty for any other annotation."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return ()
    rest = [a for a in get_args(annotation) if a is not type(None)]
    single = len(rest) == 1 and len(get_args(annotation)) == 2 and get_origin(rest[0]) is Annotated
    return get_args(rest[0]) if single else ()


def bounds_of(metadata: Iterable[Any]) -> tuple[tuple[str, float], ...]:
    """Bounds in an annotation's metadata: (("ge", 0), ("lt", 1))."""
    return tuple((k, n) for m in metadata for k in _LIMITS if (n := getattr(m, k, None)) is not None)


def within(value: Any, metadata: Iterable[Any]) -> bool:
    """Whether a number lies inside the bounds of an annotation's metadata."""
    return all(_LIMITS[k][0](value, limit) for k, limit in bounds_of(metadata))


def _choices(annotation: Any) -> tuple[Any, ...]:
    literals = [a for a in (annotation, *get_args(annotation)) if get_origin(a) is Literal]
    none = (None,) if type(None) in get_args(annotation) and literals else ()
    return tuple(choice for literal in literals for choice in get_args(literal)) + none


def type_name(annotation: Any) -> str:
    """Nearest type name that OmegaConf can check."""
    of, args = get_origin(annotation), get_args(annotation)
    if of is Literal:
        return type_name(type(args[0]))
    if of in (Union, types.UnionType):
        rest = [type_name(a) for a in args if a is not type(None)]
        if len(rest) > 1 or rest == ["Any"]:
            return "Any"
        return f"{rest[0]} | None" if type(None) in args else rest[0]
    if of in (list, tuple) or annotation in (list, tuple):
        return f"list[{type_name(args[0]) if args else 'Any'}]"
    if of is dict or annotation is dict:
        return "dict"
    return annotation.__name__ if annotation in (int, float, str, bool) else "Any"


def parse_args_section(doc: str) -> dict[str, str]:
    """Parse the `Args:` section of a docstring: name -> text in one line."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(doc), re.MULTILINE)
    pattern = r"^ {4}\**(\w+(?:, \w+)*)[^:\n]*: (.*(?:\n {5,}.*)*)"  # `width, depth (int): in channels`
    items = re.findall(pattern, section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()) for names, text in items for name in names.split(", ")}


PositiveInt = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]  # zero is off
Depth = Annotated[int, Interval(ge=0, le=1_000)]  # number of layers
Positive = Annotated[float, Gt(0.0)]
NonNegative = Annotated[float, Ge(0.0)]
Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]
DropoutRate = Annotated[float, Interval(ge=0.0, lt=1.0)]
Betas = Annotated[tuple[float, float], Interval(ge=0.0, lt=1.0)]  # Adam's two decay rates
