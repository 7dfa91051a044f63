"""Texts from files that cannot be cut into ranges of bytes: compressed ones, tables, Parquet and Arrow.

They are read from their beginning to their end, one record after the other. A hash of each text decides its split.
"""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from zoo.core.errors import DataError
from zoo.data.text.records import BLOCK, READERS, Broken, kind_of, read_records, text_file_lines

PARTS = 20  # of the hashes, of which the first is for validation and the second for testing


class Share(NamedTuple):
    """The texts of a file that belong to a split: 0 is training, 1 validation, 2 test."""

    path: Path
    split: int


def split_of_text(text: str) -> int:
    """Split of a text, by its CRC-32 modulo 20: equal texts are in one split."""
    return {0: 1, 1: 2}.get(crc32(text.encode()) % PARTS, 0)


def is_sequential(path: Path) -> bool:
    """Whether a file is read record by record: compressed, or of a kind other than plain text and JSON Lines."""
    compressed = path.suffix.lower() in (".gz", ".zst")
    return compressed or (kind_of(path) in READERS and kind_of(path) not in (".jsonl", ".ndjson"))


def texts_of_share(share: Share, field: str, lines: bool) -> Iterator[list[str]]:
    """Yield the texts of a split, in lists of about `BLOCK` characters.

    Args:
        share: file and split.
        field: field of a record.
        lines: each line of a compressed plain-text file is one text.

    Raises:
        DataError: a record without the field, or compressed plain text without `lines`.
    """
    found, size = list[str](), 0
    for text in all_texts(share.path, field, lines):
        if split_of_text(text) == share.split:
            found.append(text)
            size += len(text)
        if size >= BLOCK:
            yield found
            found, size = [], 0
    if found:
        yield found


def all_texts(path: Path, field: str, lines: bool) -> Iterator[str]:
    """Yield the texts of a file."""
    if kind_of(path) not in READERS:
        if not lines:
            raise DataError(
                f"data.path={path}: compressed text is one text per line. Set data.lines=true, or unpack the file."
            )
        yield from (line.removesuffix("\n") for line in text_file_lines(path) if line.strip())
        return
    for where, values in read_records(path, Broken()):
        if not isinstance(values.get(field), str):
            raise DataError(f"data.field={field}: no text of that name in {where}. Set data.field=NAME.")
        yield values[field]


def fair_sample(texts: Iterable[str], size: int) -> list[str]:
    """Choose texts of at most `size` characters together, those with the lowest hash, in the order of their hash.

    The choice depends neither on the order of the texts nor on their number in memory, which is bounded by `size`.
    """
    kept, total = list[tuple[int, str]](), 0  # a heap of the negative hash
    for text in texts:
        heapq.heappush(kept, (-crc32(text.encode(), 1), text))
        total += len(text)
        while total > size and len(kept) > 1:
            total -= len(heapq.heappop(kept)[1])
    return [text for _, text in sorted(kept, reverse=True)]
