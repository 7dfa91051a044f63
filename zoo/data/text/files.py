"""Read text files, JSON Lines and folders of them."""

import json
from pathlib import Path
from typing import Any

from zoo.core.errors import DataError


def decode_file(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        DataError: the file is unreadable, or not text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    return decode_utf8(raw, path)


def decode_utf8(raw: bytes, path: Path, begin: int = 0) -> str:
    """Decode UTF-8 bytes of a file from position `begin`.

    Raises:
        DataError: the bytes are not text.
    """
    try:
        text = raw.decode("utf-8" if begin else "utf-8-sig")
        if "\0" not in text:
            return text.replace("\r\n", "\n")
        reason = f"a zero byte at position {begin + raw.index(0)}"
    except UnicodeDecodeError as error:
        reason = f"byte {raw[error.start]:#04x} at position {begin + error.start} is not UTF-8"
    raise DataError(f"{path} is not a text file ({reason}). Leave it out with data.glob, or convert it to UTF-8.")


def jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read (location for error messages, object) for each line that is not blank.

    Raises:
        DataError: a line is not a JSON object.
    """
    lines = enumerate(decode_file(path).split("\n"), 1)
    located = ((f"line {number} of {path}", line) for number, line in lines if line.strip())
    return [(where, json_object(line, where)) for where, line in located]


def json_object(line: str, where: str) -> dict[str, Any]:
    """Parse a line as a JSON object.

    Raises:
        DataError: the line is not JSON, or not an object.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}). Write one object per line.") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object. Write one object with text fields per line.")
    return row


def files_of(path: Path, glob: str) -> list[Path]:
    """List a file, or the matching files of a folder in the order of their paths.

    Raises:
        DataError: no such file or folder, or no match.
    """
    if not path.exists():
        raise DataError(f"data.path={path}: no such file or folder. Set data.path=PATH.")
    files = [path] if path.is_file() else sorted(p for p in path.rglob(glob) if p.is_file())
    if not files:
        raise DataError(f"data.glob={glob}: no matching file in folder {path}. Add text, or set data.glob='*.md'.")
    return files


def cut(texts: list[str], *shares: float) -> list[list[str]]:
    """Cut texts by characters into consecutive parts with the given shares; the last part takes the rest."""
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
