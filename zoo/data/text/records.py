"""Records, which are objects with named fields, from the files that people have.

Kinds are JSON Lines, JSON arrays, CSV, TSV, Parquet and Arrow, each also compressed by gzip or Zstandard. A folder may
be a data set that the Hugging Face library `datasets` has saved. It has splits where the names of its files or
sub-folders begin with train, val (valid, validation, dev) or test.
"""

import csv
import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.data.listing import list_folder, log_rank0
from zoo.data.text.files import decode_utf8, json_object

Record = tuple[str, dict[str, Any]]  # location for error messages, and fields
SPLIT = re.compile(r"(?:(train|training)|(val|valid|validation|dev)|(test))(?![a-z])", re.IGNORECASE)
METADATA = ("dataset_info.json", "dataset_dict.json", "state.json")  # of `datasets`
EXTRA = "needs pyarrow, which is not installed. Install the extra: generative-zoo[parquet]."
BLOCK = 4 << 20  # bytes of text in memory at once
BATCH = 1024  # records of a Parquet file in memory at once
log = logging.getLogger(__name__)


class Broken:
    """Records that cannot be used: the first one is an error, or they are counted.

    Args:
        skip: count them.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip, self.errors = skip, list[str]()

    def add(self, error: DataError) -> None:
        """Count a record.

        Raises:
            DataError: broken records are not skipped.
        """
        if not self.skip:
            raise error
        self.errors.append(str(error))

    def report(self, name: str) -> None:
        """Warn of the broken records, and name the first three."""
        if self.errors:
            first, more = " ".join(self.errors[:3]), " ..." if len(self.errors) > 3 else ""
            log_rank0(log.warning, f"data={name}: left out {len(self.errors):,} broken records. {first}{more}")


def read_records(path: Path, broken: Broken) -> Iterator[Record]:
    """Read the records of a file one by one, by the kind that its name ends with; other files are JSON Lines.

    Memory is that of a few blocks or record batches. Whole files are in memory where they are a JSON array, or
    compressed Parquet or Arrow.

    Raises:
        DataError: the file is unreadable or not of its kind, or a record is broken.
    """
    return _records(open_file(path), path, broken)


@contextmanager
def opened(path: Path, file: BinaryIO) -> Iterator[Any]:
    """The content of an open file, which may be compressed; the file is closed afterwards."""
    with file:
        if path.suffix.lower() == ".gz":
            yield gzip.GzipFile(fileobj=file)
        elif path.suffix.lower() == ".zst":
            pa = import_pyarrow(path)
            yield pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        else:
            yield file


def open_file(path: Path) -> BinaryIO:
    """Open a file.

    Raises:
        DataError: it cannot be read, or a library is missing.
    """
    if path.suffix.lower() == ".zst":
        import_pyarrow(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None


def text_file_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, which may be compressed, with their line feeds."""
    with opened(path, open_file(path)) as stream:
        yield from text_lines(stream, path)


def _records(file: BinaryIO, path: Path, broken: Broken) -> Iterator[Record]:
    """Records of an open file, which is closed at their end."""
    with opened(path, file) as stream:
        yield from READERS.get(kind_of(path), json_lines)(stream, path, broken)


def read_bytes(stream: BinaryIO, path: Path, size: int = -1) -> bytes:
    """Read bytes of a file that may be compressed.

    Raises:
        DataError: the file is not whole.
    """
    try:
        return stream.read() if size < 0 else stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        kind = {".gz": "gzip", ".zst": "Zstandard"}.get(path.suffix.lower())
        if kind is None:
            raise DataError(f"{path} cannot be read ({error}). Check its permissions.") from None
        raise DataError(f"{path} is not a whole {kind} file ({error}). Copy it again.") from None


def text_blocks(stream: BinaryIO, path: Path) -> Iterator[str]:
    """Blocks of whole lines of a UTF-8 file, of about `BLOCK` bytes; see `zoo.data.text.files.decode_utf8`."""
    begin, held = 0, list[bytes]()
    while more := read_bytes(stream, path, BLOCK):
        end = more.rfind(b"\n") + 1
        if not end:
            held.append(more)  # a line that is longer than a block
            continue
        raw = b"".join((*held, more[:end]))
        yield decode_utf8(raw, path, begin)
        begin, held = begin + len(raw), [more[end:]]
    if last := b"".join(held):
        yield decode_utf8(last + b"\n" if begin else last, path, begin)


def text_lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file with their line feeds."""
    for text in text_blocks(stream, path):
        *whole, last = text.split("\n")
        yield from (line + "\n" for line in whole)
        if last:
            yield last


def kind_of(path: Path) -> str:
    """The suffix of a name, before that of a compression."""
    kinds = [suffix.lower() for suffix in path.suffixes]
    return kinds[-2] if len(kinds) > 1 and kinds[-1] in (".gz", ".zst") else kinds[-1] if kinds else ""


# -- kinds of files ------------------------------------------------------------------------------------------


def json_lines(stream: BinaryIO, path: Path, broken: Broken) -> Iterator[Record]:
    """Records of lines that are not blank."""
    yield from json_records(text_lines(stream, path), path, broken)


def json_records(lines: Iterator[str], path: Path, broken: Broken) -> Iterator[Record]:
    """Records of lines that are not blank."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"line {number} of {path}"
            try:
                row = json_object(line, where, path)
            except DataError as error:
                broken.add(error)
                continue
            yield where, row


def json_array(stream: BinaryIO, path: Path, broken: Broken) -> Iterator[Record]:
    """Records of an array of objects; a file that begins otherwise has JSON Lines."""
    lines = text_lines(stream, path)
    blank, first = list[str](), ""
    for first in lines:
        if first.strip():
            break
        blank.append(first)
    lines = chain(blank, [first], lines)
    if not first.lstrip().startswith("["):
        yield from json_records(lines, path, broken)
        return
    text = "".join(lines)
    try:
        rows = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON array ({error}). Repair it, or write one object per line.") from None
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield f"element {number} of {path}", row
        else:
            broken.add(DataError(f"element {number} of {path} is not an object. Give fields with names."))


def table(delimiter: str) -> Callable[[BinaryIO, Path, Broken], Iterator[Record]]:
    """A reader of text tables, whose first line has the names of fields."""

    def read(stream: BinaryIO, path: Path, broken: Broken) -> Iterator[Record]:
        csv.field_size_limit(2**31 - 1)
        rows = csv.reader(text_lines(stream, path), delimiter=delimiter, strict=True)
        heading, line = list[str](), 1
        try:
            for fields in rows:
                where, line = f"line {line} of {path}", rows.line_num + 1
                if not heading:
                    heading = [name.strip() for name in fields]
                elif len(fields) == len(heading):
                    yield where, dict(zip(heading, fields, strict=True))
                elif fields:
                    broken.add(
                        DataError(f"{where} has {len(fields)} fields, and the first has {len(heading)}. Repair it.")
                    )
        except csv.Error as error:
            raise DataError(f"line {rows.line_num} of {path} is not a table ({error}). Close its quotes.") from None

    return read


def parquet(stream: BinaryIO, path: Path, broken: Broken) -> Iterator[Record]:
    """Records of a Parquet file."""
    pa = import_pyarrow(path)
    from pyarrow.parquet import ParquetFile

    try:
        yield from rows_of(ParquetFile(mapped(pa, stream, path)).iter_batches(BATCH), path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def arrow(stream: BinaryIO, path: Path, broken: Broken) -> Iterator[Record]:
    """Records of an Arrow file or stream; `datasets` saves streams."""
    pa = import_pyarrow(path)
    try:
        source = mapped(pa, stream, path)
        begin = source.read(6)
        source.seek(0)
        if begin == b"ARROW1":
            file = pa.ipc.open_file(source)
            yield from rows_of((file.get_batch(i) for i in range(file.num_record_batches)), path)
        else:
            yield from rows_of(pa.ipc.open_stream(source), path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def mapped(pa: Any, stream: BinaryIO, path: Path) -> Any:
    """The file mapped into memory; a compressed one, and an empty one, is read."""
    if path.suffix.lower() in (".gz", ".zst") or not path.stat().st_size:
        return pa.BufferReader(read_bytes(stream, path))
    return pa.memory_map(str(path))


def rows_of(batches: Any, path: Path) -> Iterator[Record]:
    """Rows of record batches."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"row {number} of {path}", row


def damaged(path: Path, error: Exception) -> DataError:
    """The error of a file that pyarrow does not read."""
    return DataError(f"{path} is damaged ({str(error).splitlines()[0].rstrip('.')}). Copy it again.")


def import_pyarrow(path: Path) -> Any:
    """Import pyarrow.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow.ipc
    except ImportError:
        raise DataError(f"data.path={path}: {EXTRA}") from None
    return pyarrow


READERS: dict[str, Callable[[BinaryIO, Path, Broken], Iterator[Record]]] = {
    ".jsonl": json_lines, ".ndjson": json_lines, ".json": json_array, ".csv": table(","), ".tsv": table("\t"),
    ".parquet": parquet, ".arrow": arrow,
}  # fmt: skip


# -- folders -------------------------------------------------------------------------------------------------


def record_files(place: Path) -> dict[str, list[Path]]:
    """List files of records by split: "train", "val" and "test"; "train" has all where no name begins with a split.

    Raises:
        DataError: no such file or folder, or no training records in it.
    """
    if place.is_file():
        return {"train": [place]}
    if not place.is_dir():
        raise DataError(f"data.path={place}: neither a file nor a folder. Set data.path.")
    listing = list_folder(place, lambda name: kind_of(Path(name)) in READERS)
    names = sorted(name for name in listing.files if Path(name).name not in METADATA and is_saved(place / name))
    found: dict[str, list[Path]] = {}
    for name in names:
        found.setdefault(split_of(name), []).append(place / name)
    others = found.pop("", [])
    if not found:
        found = {"train": others}
    elif others:
        more = ", ..." if len(others) > 5 else ""
        shown = ", ".join(file.name for file in others[:5])
        log_rank0(log.warning, f"data.path={place}: left out {counted(len(others), 'file')}: {shown}{more}.")
    if not found.get("train"):
        have = ", ".join(names[:5]) or listing.kinds() or "nothing"
        raise DataError(f"data.path={place}: no training records in this folder ({have}). Add train.jsonl.")
    return found


def split_of(name: str) -> str:
    """The split that the first part of a path is named after, or nothing."""
    for part in Path(name).parts:
        if found := SPLIT.match(part):
            return ("train", "val", "test")[(found.lastindex or 1) - 1]
    return ""


def is_saved(file: Path) -> bool:
    """Whether a data set of `datasets` consists of a file; others beside it are caches.

    Raises:
        DataError: the list of files is damaged.
    """
    state = file.parent / "state.json"
    if file.suffix != ".arrow" or not state.is_file():
        return True
    try:
        return file.name in [part["filename"] for part in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{state} is damaged ({error!r}). Save the data set again.") from None
