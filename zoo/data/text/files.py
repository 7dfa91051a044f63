"""Read text files, JSON lines and folders of them."""

import json
from pathlib import Path
from typing import Any

from zoo.core.errors import DataError


def decode_file(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        DataError: unreadable, or not text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    return decoded(raw, path)


def decoded(raw: bytes, path: Path, begin: int = 0) -> str:
    """UTF-8 bytes of a file, the first of which is at `begin`, as text.

    Raises:
        DataError: they are not text.
    """
    try:
        text = raw.decode("utf-8" if begin else "utf-8-sig")
        if "\0" not in text:
            return text.replace("\r\n", "\n")
        reason = f"a zero byte at position {begin + raw.index(0)}"
    except UnicodeDecodeError as error:
        reason = f"byte {raw[error.start]:#04x} at position {begin + error.start} is not UTF-8"
    raise DataError(f"{path} is not a text file ({reason}): leave it out with data.glob, or convert it to UTF-8.")


def jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects in a file of one JSON object a line, each with its place as an error should name it.

    Raises:
        DataError: a line that is none; blank ones are passed over.
    """
    found = []
    for number, line in enumerate(decode_file(path).split("\n"), 1):
        where = f"line {number} of {path}"
        if not line.strip():
            continue
        found.append((where, json_object(line, where)))
    return found


def json_object(line: str, where: str) -> dict[str, Any]:
    """A line of JSON.

    Raises:
        DataError: it is none, or no object.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}): write one object a line.") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is no JSON object: write one a line, with fields of text.")
    return row


def files_of(place: Path, pattern: str) -> list[Path]:
    """A file, or those of a folder whose names match, in the order of their paths.

    Raises:
        DataError: nothing there, or nothing that matches.
    """
    if not place.exists():
        raise DataError(f"there is no file or folder {place}: give yours as data.path=PATH.")
    files = [place] if place.is_file() else sorted(p for p in place.rglob(pattern) if p.is_file())
    if not files:
        raise DataError(f"folder {place} has no file that matches {pattern}: put text there, or set data.glob='*.md'.")
    return files


def cut(texts: list[str], *shares: float) -> list[list[str]]:
    """Texts cut by characters into consecutive parts that hold the given shares; the last part takes the rest."""
    total, parts, done = sum(map(len, texts)), [], 0
    rest = list(texts)
    for bound in [round(total * sum(shares[: i + 1])) for i in range(len(shares))]:
        part: list[str] = []
        while rest and done < bound:
            head, tail = rest[0][: bound - done], rest[0][bound - done :]
            part.append(head)
            done += len(head)
            rest = [tail, *rest[1:]] if tail else rest[1:]
        parts.append(part)
    return [*parts, rest]
