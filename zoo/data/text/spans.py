"""Ranges of bytes in text files: splits of running text, and blocks that fit in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from zoo.core.errors import DataError
from zoo.data.text.files import decode_utf8, json_object

BLOCK = 4 << 20  # bytes of text in memory at once
STRETCHES = 50  # held-out parts of a long text
SHORTEST = 2_000  # bytes of a held-out part of a text that has several


class Span(NamedTuple):
    """Whole lines of a file, as a range of bytes."""

    path: Path
    begin: int
    end: int


def spans(files: list[Path]) -> tuple[list[Span], ...]:
    """Split the bytes of files 90 : 5 : 5, evenly spaced over the text, at line ends.

    The text is divided into equal stretches, at most `STRETCHES`, and each stretch is split in this order. So the
    beginning and the end of a sorted text are in every split. A line that is longer than half of a held-out part is cut
    between characters, except in JSON Lines.

    Returns:
        The spans of training, validation and test text.
    """
    total = sum(path.stat().st_size for path in files)
    stretches = min(max(total // (20 * SHORTEST), 1), STRETCHES)
    bounds = [round(total * (n + share) / stretches) for n in range(stretches) for share in (0.9, 0.95, 1)]
    longest = max(total // (40 * stretches), 2)
    done, parts = 0, ([], [], [])  # type: tuple[int, tuple[list[Span], ...]]
    for path in files:
        size, begin = path.stat().st_size, 0
        for number, bound in enumerate(bounds):
            end = min(max(bound - done, begin), size)
            if begin < end < size:
                end = line_end(path, end, longest)
            if begin < end:
                parts[number % 3].append(Span(path, begin, end))
                begin = end
        done += size
    return parts


def is_jsonl(path: Path) -> bool:
    """Whether each line of a file is an object in JSON."""
    return path.suffix.lower() in (".jsonl", ".ndjson")


def opened(path: Path) -> BinaryIO:
    """Open a file to read bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None


def blocks(span: Span) -> Iterator[Span]:
    """Cut a span into blocks of about `BLOCK` bytes, each up to a line end."""
    begin = span.begin
    while begin < span.end:
        end = min(begin + BLOCK, span.end)
        if end < span.end:
            end = min(line_end(span.path, end, BLOCK), span.end)
        yield Span(span.path, begin, end)
        begin = end


def line_end(path: Path, place: int, longest: int) -> int:
    """Find the end of the line that contains the byte before `place`.

    If it is more than `longest` bytes away, return `place`, or the end of the character there, except in JSON Lines.
    """
    with opened(path) as file:
        file.seek(place - 1)
        line = file.readline() if is_jsonl(path) else file.readline(longest)
    if line.endswith(b"\n") or len(line) < longest or is_jsonl(path):
        return place - 1 + len(line)
    return place + next((i for i, byte in enumerate(line[1:]) if byte & 0xC0 != 0x80), 0)  # not inside a character


def read_texts(span: Span, field: str, lines: bool) -> list[str]:
    """Read the texts in a span: the field of each JSON line, each line that is not blank, or the whole span.

    Raises:
        DataError: the span is not text, or not JSON.
    """
    with opened(span.path) as file:
        file.seek(span.begin)
        text = decode_utf8(file.read(span.end - span.begin), span.path, span.begin)
    if not is_jsonl(span.path):
        return [line for line in text.split("\n") if line.strip()] if lines else [text]
    found, place = [], f"of {span.path} after byte {span.begin:,}" if span.begin else f"of {span.path}"
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"line {number} {place}"
            value = json_object(line, where, span.path).get(field)
            if not isinstance(value, str):
                raise DataError(f"data.field={field}: no text of that name in {where}. Set data.field=NAME.")
            found.append(value)
    return found
