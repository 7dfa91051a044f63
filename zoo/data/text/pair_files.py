"""Read pairs of texts from parallel line files, TSV and JSON Lines."""

from collections.abc import Iterator
from pathlib import Path

from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.data.text.files import decode_file, jsonl

TextPair = tuple[str, str]
FIELDS = [
    ("source", "target"),
    ("question", "answer"),
    ("document", "summary"),
    ("prompt", "completion"),
    ("input", "output"),
]


def lines(path: Path) -> list[str]:
    """Read the lines of a text file."""
    text = decode_file(path)
    return text.removesuffix("\n").split("\n") if text else []


def from_lines(source: Path, target: Path) -> list[TextPair]:
    """Pair line n of one file with line n of the other.

    Raises:
        DataError: a file is missing or empty, or the files differ in length.
    """
    if not target.is_file():
        raise DataError(f"{target} is missing. Each line of {source.name} needs a line there.")
    one, two = lines(source), lines(target)
    if len(one) != len(two):
        raise DataError(
            f"{source} has {counted(len(one), 'line')} and {target.name} has {len(two)}. Make line n of one the "
            f"translation of line n of the other."
        )
    return require_pairs(list(zip(one, two, strict=True)), source)


def from_tsv(path: Path, source: str | None, target: str | None) -> Iterator[tuple[int, TextPair]]:
    """Read line numbers, and two columns of a tab-separated file, by default the first two.

    Raises:
        DataError: a line with too few columns, or no such heading.
    """
    rows = [line.split("\t") for line in lines(path)]
    columns, first = (0, 1), 0
    if source is not None and target is not None:
        heading = rows[0] if rows else []
        for name in (source, target):
            if name not in heading:
                have = ", ".join(heading) or "nothing"
                raise DataError(
                    f"data.source and data.target: no column {name} in the first line of {path}. It has {have}."
                )
        columns, first = (heading.index(source), heading.index(target)), 1
    for number, row in enumerate(rows[first:], first + 1):
        if len(row) <= max(columns):
            found = counted(len(row), "column")
            raise DataError(
                f"line {number} of {path} has {found}, too few for a pair. Separate the two texts by a tab."
            )
        yield number, (row[columns[0]], row[columns[1]])


def from_jsonl(path: Path, source: str | None, target: str | None) -> Iterator[tuple[int, TextPair]]:
    """Read line numbers, and two text fields of one JSON object per line.

    Raises:
        DataError: a line is not an object, or does not have a field.
    """
    for where, values in jsonl(path):
        if source is None or target is None:
            source, target = next((f for f in FIELDS if values.keys() >= set(f)), (None, None))
        if source is None or target is None:
            have = ", ".join(map(str, values)) or "nothing"
            raise DataError(f"{where} has the fields {have}. Name the two of the pair by data.source and "
                           f"data.target.")  # fmt: skip
        for name in (source, target):
            if not isinstance(values.get(name), str):
                problem = "missing" if name not in values else "null" if values[name] is None else "not text"
                raise DataError(f"field {name} is {problem} in {where}. Every line needs it.")
        yield int(where.split()[1]), (values[source], values[target])


def require_pairs(pairs: list[TextPair], path: Path) -> list[TextPair]:
    """Return the pairs, if there are any.

    Raises:
        DataError: the file is empty.
    """
    if not pairs:
        raise DataError(f"{path} is empty. Add pairs.")
    return pairs


READERS = {".tsv": from_tsv, ".jsonl": from_jsonl}
