r"""Templates that make a text of the fields of a row: `Translate: {de}\n`.

A name in braces stands for a field: any key of the row, or a path to a nested value (`{messages[0][content]}` or
`{messages.0.content}`). `{name?}` is empty, and `{name?default}` is `default`, where the field is missing or null.
`{{` and `}}` are braces, and `\n` is a line feed.
"""

import json
import re
from typing import Any

from zoo.core.errors import DataError
from zoo.core.escapes import read_escapes

PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def render_template(setting: str, template: str, where: str, row: dict[str, Any]) -> str:
    """Fill in a field name, or a template with field names in braces; `where` locates the row in errors.

    Raises:
        DataError: the row does not have a field, or it is not text.
    """

    def field(name: str) -> str:
        value = value_of(row, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str):
            return value
        problem, have = value.problem if isinstance(value, Missing) else "not text", ", ".join(row)
        optional = f", or {{{name}?}} if it is optional" if isinstance(value, Missing) and "{" in template else ""
        raise DataError(
            f"data.{setting}={template}: field {name!r} is {problem} in {where} (fields: {have}). "
            f"Set data.{setting}=FIELD{optional}."
        )

    def place(found: re.Match[str]) -> str:
        return found[0][0] if found[1] is None else field(found[1])

    return PLACE.sub(place, read_escapes(template)) if "{" in template else field(template)


class Missing:
    """A value that a row does not have; `problem` is "missing" or "null"."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def value_of(row: dict[str, Any], name: str) -> Any:
    """Value of a key, else at the end of a path, else the default after a question mark; `Missing` without one."""
    if name in row:
        found = row[name]
    else:
        name, optional, default = name.partition("?")
        found = at_path(row, name)
        if optional and (found is None or isinstance(found, Missing)):
            return default
    return Missing("null") if found is None else found


def at_path(row: Any, name: str) -> Any:
    """Value at a path of keys and list indices, such as `a.b[0][c]`."""
    if isinstance(row, dict) and name in row:
        return row[name]
    found = row
    for key in re.findall(r"[^.\[\]]+", name) or [""]:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return Missing("missing")
    return found


def field_names(template: str) -> list[str]:
    """Names of the fields in a template, each once."""
    names = [found[1].partition("?")[0] for found in PLACE.finditer(template) if found[1] is not None]
    return list(dict.fromkeys(names))


def follows(template: str, text: str) -> bool:
    """Whether a text could have been made by a template."""
    parts, place = [], 0
    for found in PLACE.finditer(template):
        inside = re.escape(found[0][0]) if found[1] is None else ".*"
        parts += [re.escape(read_escapes(template[place : found.start()])), inside]
        place = found.end()
    return re.fullmatch("".join([*parts, re.escape(read_escapes(template[place:]))]), text, re.DOTALL) is not None


def fill_prompt(template: str, text: str) -> str:
    """Put a text into the template that prompts of training were made by.

    A text that already follows the template stays as it is. A template of several fields takes a JSON object.

    Raises:
        DataError: several fields, and not an object with them.
    """
    names = field_names(template)
    if not names or follows(template, text):
        return text
    row: Any = {names[0]: text}
    if len(names) > 1:
        try:
            row = json.loads(text)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            wanted = json.dumps(dict.fromkeys(names, "..."), ensure_ascii=False)
            raise DataError(f"prompt={text}: data.prompt={template} has several fields. Give {wanted}.")
    return render_template("prompt", template, "the prompt", row)
