"""Requests and answers as dataclasses: JSON to values, values to JSON, and JSON Schema, all from the annotations."""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zoo.core.registry import unknown_name_message
from zoo.core.signature import bounds_of, parse_args_section, within
from zoo.serve.errors import invalid

T = TypeVar("T")
KEYWORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
MAX_INTEGER = 2**63 - 1


class Request:
    """Base class of request bodies: frozen dataclasses with keyword-only fields.

    Fields in `ignored` are accepted without effect; those in `unsupported` are refused where they would have one.
    """

    ignored: tuple[str, ...] = ()
    unsupported: Mapping[str, tuple[Any, ...]] = types.MappingProxyType({})  # name -> values without an effect


# -- JSON ----------------------------------------------------------------------------------------------------------


def read_json(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly.

    Raises:
        APIError: not JSON, not an object, nested too deeply, or with numbers that JSON does not have.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON.")

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except RecursionError:
        raise invalid("The body is nested too deeply. Send a flat JSON object.") from None
    except ValueError as error:
        raise invalid(f"The body is not valid JSON ({error}). Send a JSON object.") from None
    if not isinstance(value, dict):
        raise invalid("The body is not a JSON object. Send an object such as {}.")
    return value


def write_json(value: Any) -> bytes:
    """Serialise an answer; dataclasses become objects, and numbers that JSON does not have become null."""
    try:
        text = json.dumps(value, default=members, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(plain(value)), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="backslashreplace")  # halves of characters, as JSON escapes them


def members(value: Any) -> dict[str, Any]:
    """Members of the JSON object of a dataclass, as they are; fields of `omitted_if_none` that are None are left out.

    Raises:
        TypeError: neither a dataclass nor a mapping.
    """
    kind: Any = type(value)
    if not is_dataclass(kind) and isinstance(value, Mapping):
        return dict(value)
    names, optional = field_names(kind)
    if not optional:
        return {name: getattr(value, name) for name in names}
    return {name: found for name in names if (found := getattr(value, name)) is not None or name not in optional}


@cache
def field_names(kind: Any) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names of the fields of a dataclass, and which are left out where they are None.

    Raises:
        TypeError: another class.
    """
    return tuple(field.name for field in fields(kind)), frozenset(getattr(kind, "omitted_if_none", ()))


def plain(value: Any) -> Any:
    """Convert dataclasses and mappings to dictionaries, and tuples to lists, at any depth."""
    if isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type)):
        return {str(key): plain(each) for key, each in members(value).items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def finite(value: Any) -> Any:
    """Replace infinities and NaN by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- values from JSON ------------------------------------------------------------------------------------------------


def parse(kind: type[T], body: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from a JSON object, checked against types and bounds.

    Raises:
        APIError: a missing, unknown or unsupported field, or a value of another type or out of bounds.
    """
    of: Any = kind
    hints, needed = type_hints(of), needed_fields(of)
    unsupported: Mapping[str, tuple[Any, ...]] = getattr(kind, "unsupported", {})
    values = {}
    for name, value in body.items():
        at = f"{where}.{name}" if where else name
        if name in needed:
            values[name] = convert(hints[name], value, at)
        elif name in unsupported:
            if value is not None and value not in unsupported[name]:
                raise invalid(f"{at}: not supported by this server. Leave it out.", at, "unsupported_parameter")
        elif name not in getattr(kind, "ignored", ()):
            raise invalid(f"{unknown_name_message('parameter', name, sorted(needed))}.", at, "unknown_parameter")
    for name, is_needed in needed.items():
        if is_needed and name not in values:
            at = f"{where}.{name}" if where else name
            raise invalid(f"{at}: missing. Add it to the request.", at, "missing_required_parameter")
    return kind(**values)


@cache
def needed_fields(kind: Any) -> dict[str, bool]:
    """Names of the fields of a dataclass, and whether a request must have them."""
    return {field.name: not has_default(field) for field in fields(kind)}


@dataclass(frozen=True)
class Hint:
    """An annotation in parts: to take one apart takes longer than to check a value.

    Args:
        outer: list, dict, Literal or Union; dataclass for a dataclass; None for other types.
        plain: the annotation without its metadata.
        options: arguments of the outer type.
        bounds: of a number.
        lengths: the smallest and the largest of a text or list.
    """

    outer: Any
    plain: Any
    options: tuple[Any, ...]
    bounds: tuple[Any, ...]
    lengths: tuple[int | None, int | None]


@cache
def hint_of(annotation: Any) -> Hint:
    """Take an annotation apart."""
    plain, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    outer = dataclass if is_dataclass(plain) else get_origin(plain)
    outer = Union if outer is types.UnionType else outer
    bounds = tuple(metadata) if bounds_of(metadata) else ()
    return Hint(outer, plain, get_args(plain), bounds, length_bounds(metadata))


def convert(annotation: Any, value: Any, at: str) -> Any:
    """Check a JSON value against an annotation.

    Raises:
        APIError: it does not fit.
    """
    hint = hint_of(annotation)
    if hint.outer is Union:
        if value is None and type(None) in hint.options:
            return None
        option = next((option for option in hint.options if fits(option, value)), None)
        if option is None:
            raise invalid(f"{at}: must be {words(hint.plain)}, not {shown(value)}. Correct it.", at, "invalid_type")
        value = convert(option, value, at)
    elif not fits(annotation, value):
        raise invalid(f"{at}: must be {words(hint.plain)}, not {shown(value)}. Correct it.", at, "invalid_type")
    elif hint.outer is dataclass:
        return parse(hint.plain, value, at)
    elif hint.outer is list:
        value = [convert(hint.options[0], each, f"{at}[{i}]") for i, each in enumerate(value)]
    elif hint.outer is dict:
        value = {key: convert(hint.options[1], each, f"{at}.{key}") for key, each in value.items()}
    elif hint.plain is int or hint.plain is float:
        value = hint.plain(value)
    check_bounds(hint, value, at)
    return value


def fits(annotation: Any, value: Any) -> bool:
    """Whether a JSON value has the outer type of an annotation."""
    hint = hint_of(annotation)
    if hint.plain is Any:
        return True
    if hint.outer is Literal:
        return any(type(value) is type(choice) and value == choice for choice in hint.options)
    if hint.plain is float:
        return type(value) in (int, float) and abs(value) < 1e300
    if hint.plain is int:
        whole = type(value) is int or (type(value) is float and value.is_integer())
        return whole and abs(value) <= MAX_INTEGER
    if hint.outer in (dataclass, dict):
        return isinstance(value, dict)
    if hint.outer is list:
        return isinstance(value, list) and (not value or fits(hint.options[0], value[0]))
    if hint.outer is Union:
        return any(fits(option, value) for option in hint.options)
    return type(value) is (type(None) if hint.plain is None else hint.plain)


def check_bounds(hint: Hint, value: Any, at: str) -> None:
    """Check a number against bounds, and a text or list against lengths.

    Raises:
        APIError: out of bounds.
    """
    if hint.bounds and type(value) in (int, float) and not within(value, hint.bounds):
        bounds = " and ".join(f"{KEYWORDS[key]} {limit}" for key, limit in bounds_of(hint.bounds))
        raise invalid(f"{at}={value}: out of range ({bounds}). Choose another value.", at, "out_of_range")
    shortest, longest = hint.lengths
    if longest is not None and isinstance(value, (str, list)) and len(value) > longest:
        raise invalid(f"{at}: longer than {longest}. Shorten it.", at, "too_long")
    if shortest is not None and isinstance(value, (str, list)) and len(value) < shortest:
        raise invalid(f"{at}: shorter than {shortest}. Lengthen it.", at, "too_short")


def length_bounds(metadata: list[Any]) -> tuple[int | None, int | None]:
    """Smallest and largest length."""
    low, high = (
        next((n for m in metadata if (n := getattr(m, name, None)) is not None), None)
        for name in ("min_length", "max_length")
    )
    return low, high


def has_default(field: Field[Any]) -> bool:
    """Whether a field may be left out."""
    return field.default is not MISSING or field.default_factory is not MISSING


@cache
def type_hints(kind: Any) -> dict[str, Any]:
    """Annotations of a dataclass, with their metadata."""
    return get_type_hints(kind, include_extras=True)


def words(hint: Any) -> str:
    """An annotation in words."""
    if get_origin(hint) is Annotated:
        return words(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(option) for option in get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is list:
        return f"a list of {words(get_args(hint)[0])}"
    return {bool: "true or false", int: "an integer", float: "a number", str: "text", type(None): "null"}.get(
        hint, "an object"
    )


def shown(value: Any) -> str:
    """A JSON value in a message: short ones as they are."""
    simple = isinstance(value, (str, int, float, type(None)))
    return json.dumps(value)[:40] if simple else NAMES.get(type(value), "an object")


# -- JSON Schema -------------------------------------------------------------------------------------------------------


def schema_of(hint: Any, components: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an annotation; dataclasses become entries of `components`."""
    metadata: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, *metadata = get_args(hint)
    if is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in components:
            components[name] = {}  # before its fields, which may contain it
            components[name] = object_schema(hint, components)
        return {"$ref": f"#/components/schemas/{name}"}
    found: dict[str, Any]
    if get_origin(hint) in (Union, types.UnionType):
        found = {"anyOf": [schema_of(option, components) for option in get_args(hint)]}
        for option in found["anyOf"]:
            if option.get("type") in ("integer", "number"):
                option |= {KEYWORDS[key]: limit for key, limit in bounds_of(metadata)}
            option |= lengths(option.get("type"), metadata)
        return found
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is list:
        found = {"type": "array", "items": schema_of(get_args(hint)[0], components)}
    elif get_origin(hint) is dict:
        found = {"type": "object", "additionalProperties": schema_of(get_args(hint)[1], components)}
    elif hint is Any:
        return {}
    else:
        found = {"type": NAMES[type(None) if hint is None else hint]}
    found |= {KEYWORDS[key]: limit for key, limit in bounds_of(metadata)}
    return found | lengths(found["type"], metadata)


def lengths(kind: str | None, metadata: list[Any]) -> dict[str, int]:
    """Keywords for the length of a text or list."""
    names = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}.get(kind or "")
    if names is None:
        return {}
    return {name: n for name, n in zip(names, length_bounds(metadata), strict=True) if n is not None}


def object_schema(kind: Any, components: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of a dataclass, with the descriptions of its docstring."""
    hints, doc = type_hints(kind), kind.__doc__ or ""
    meanings, properties, required = dict[str, str](), dict[str, Any](), list[str]()
    for base in reversed(kind.__mro__):
        meanings |= parse_args_section(vars(base).get("__doc__") or "")
    for field in fields(kind):
        properties[field.name] = schema_of(hints[field.name], components)
        if text := meanings.get(field.name):
            properties[field.name]["description"] = text
        if field.default is not MISSING and field.default is not None:
            properties[field.name]["default"] = plain(field.default)
        if not issubclass(kind, Request) or not has_default(field):
            required += [] if field.name in getattr(kind, "omitted_if_none", ()) else [field.name]
    found = {"type": "object", "description": doc.split("\n")[0], "properties": properties}
    if issubclass(kind, Request):
        for name in getattr(kind, "ignored", ()):
            properties[name] = {"description": "Accepted without an effect."}
        found["additionalProperties"] = False
    return found | ({"required": required} if required else {})
