"""JSON schemas (2020-12) as regular expressions, for schemas that describe a regular language.

Supported: `type` (one or several), `enum`, `const`, `anyOf`, `properties` with `required`, `items` with `minItems` and
`maxItems`, `minLength` and `maxLength`. Objects have their properties in the order of the schema, and no others.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.core.errors import ConfigError

INTEGER = "-?(0|[1-9][0-9]*)"
NUMBER = INTEGER + r"(\.[0-9]+)?([eE][+-]?[0-9]+)?"
CHARACTER = r'([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})'
COMMA, COLON = ", ?", ": ?"
IGNORED = ("$schema", "$id", "title", "description", "default", "examples", "$comment")
KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
}


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(name, str) for name in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **{key: (_is_count, "an integer of at least 0") for key in ("minLength", "maxLength", "minItems", "maxItems")},
    **{key: (_is_list, "a list") for key in ("enum", "anyOf")},
    "type": (lambda value: value is None or isinstance(value, str) or _is_names(value), "a name or a list of names"),
    "required": (_is_names, "a list of names"),
    "properties": (lambda value: isinstance(value, Mapping), "an object"),
}


def literal(value: Any) -> str:
    """Pattern of one JSON value."""
    return re.sub(r"([^\w\s])", r"\\\1", json.dumps(value, ensure_ascii=False), flags=re.ASCII)


def schema_pattern(schema: Any) -> str:
    """Regular expression of the JSON texts that a schema allows.

    Args:
        schema: as a mapping, or as JSON.

    Raises:
        ConfigError: not JSON, or a keyword that is not supported.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"json_schema={schema[:60]!r}: not JSON ({error}). Correct it.") from None
    return _pattern(schema)


def _pattern(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        raise ConfigError(f"json_schema: {schema!r} is not an object. Give a schema with a type.")
    given = {key: value for key, value in schema.items() if key not in IGNORED}
    for key, value in given.items():
        if key in VALUES and not VALUES[key][0](value):
            raise ConfigError(f"json_schema: {key}={str(value)[:60]} must be {VALUES[key][1]}. Correct it.")
    for key in ("const", "enum", "anyOf"):
        if key in given:
            _check(given, (key, "type"))
            if key == "anyOf":
                return _either([_pattern(choice) for choice in given[key]])
            return _either([literal(value) for value in ([given[key]] if key == "const" else given[key])])
    kind = given.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        every = {"type", *(word for one in kind for word in KEYWORDS.get(one, ()))}
        _check(given, tuple(every))
        return _either([_pattern({"type": one} | _of(given, one)) for one in kind])
    _check(given, ("type", *KEYWORDS.get(str(kind), ())))
    simple = {"integer": INTEGER, "number": NUMBER, "boolean": "(true|false)", "null": "null"}
    if kind in simple:
        return simple[kind]
    if kind == "string":
        return f'"{CHARACTER}{_counts(given, "minLength", "maxLength")}"'
    if kind == "array":
        return _array(given)
    if kind == "object":
        return _object(given)
    supported = ", ".join([*simple, "string", "array", "object"])
    raise ConfigError(f"json_schema: type={kind!r} is not supported. Supported: {supported}.")


def _check(given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"json_schema: {key} is not supported here. Supported: {', '.join(sorted(known))}.")


def _of(given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {key: given[key] for key in KEYWORDS.get(kind, ()) if key in given}


def _either(patterns: Sequence[str]) -> str:
    if not patterns:
        raise ConfigError("json_schema: an empty list of choices. Give at least one.")
    return f"({'|'.join(patterns)})"


def _counts(given: Mapping[str, Any], least: str, most: str) -> str:
    if least not in given and most not in given:
        return "*"
    return f"{{{given.get(least, 0)},{given.get(most, '')}}}"


def _array(given: Mapping[str, Any]) -> str:
    if "items" not in given:
        raise ConfigError("json_schema: an array without items. Give the schema of its items.")
    item, least, most = _pattern(given["items"]), int(given.get("minItems", 0)), given.get("maxItems")
    if most is not None and int(most) < max(least, 1):
        return r"\[\]" if least == 0 else _either([])
    rest = f"({COMMA}{item}){{{max(least - 1, 0)},{'' if most is None else int(most) - 1}}}"
    return rf"\[{item}{rest}\]" if least else rf"\[({item}{rest})?\]"


def _object(given: Mapping[str, Any]) -> str:
    """Properties in order; each that is not required may be absent."""
    properties, required = dict(given.get("properties", {})), set(given.get("required", ()))
    if given.get("additionalProperties"):
        raise ConfigError("json_schema: additionalProperties is not supported. Set it to false.")
    if missing := required - set(properties):
        raise ConfigError(f"json_schema: required {sorted(missing)} are not among the properties. Add them.")
    first, later = "", ""  # patterns of the properties so far, from the last: after none, and after some
    for name, schema in reversed(properties.items()):
        item = literal(name) + COLON + _pattern(schema)
        if name in required:
            first, later = f"{item}{later}", f"{COMMA}{item}{later}"
        else:
            first, later = f"({item}{later}|{first})", f"({COMMA}{item})?{later}"
    return rf"\{{{first}\}}"
