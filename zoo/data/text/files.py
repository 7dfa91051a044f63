"""Read text files, JSON Lines and folders of them."""

import codecs
import json
import logging
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.data.listing import is_hidden, list_folder, log_rank0

log = logging.getLogger(__name__)
UTF_16 = "UTF-16 text. Convert it to UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
SIGNATURES = {  # first bytes of files that are often taken for text -> their kind and the remedy
    codecs.BOM_UTF32_LE: "UTF-32 text. Convert it to UTF-8: iconv -f UTF-32 -t UTF-8 FILE",
    codecs.BOM_UTF16_LE: UTF_16,
    codecs.BOM_UTF16_BE: UTF_16,
    b"\x1f\x8b": "compressed by gzip. Unpack it: gunzip FILE",
    b"BZh": "compressed by bzip2. Unpack it: bunzip2 FILE",
    b"\xfd7zXZ": "compressed by xz. Unpack it: unxz FILE",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard. Unpack it: unzstd FILE",
    b"PK\x03\x04": "a ZIP archive (also .docx, .odt, .epub). Unpack it, or save it as plain text",
    b"%PDF": "a PDF. Convert it to text: pdftotext FILE",
}


def decode_file(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        DataError: the file is unreadable, or not text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
    return decode_utf8(raw, path)


def decode_utf8(raw: bytes, path: Path, begin: int = 0) -> str:
    """Decode UTF-8 bytes of a file from position `begin`; Windows and old Macintosh line ends become line feeds.

    Raises:
        DataError: the bytes are not text.
    """
    for first, kind in SIGNATURES.items():
        if not begin and raw.startswith(first):
            raise DataError(f"{path} is {kind}.")
    try:
        text = raw.decode("utf-8" if begin else "utf-8-sig")
        if "\0" not in text:
            text = text.replace("\r\n", "\n")
            return text if "\n" in text else text.replace("\r", "\n")  # beside "\n" it is part of a line
        reason = f"a zero byte at position {begin + raw.index(0)}"
    except UnicodeDecodeError as error:
        reason = f"byte {raw[error.start]:#04x} at position {begin + error.start} is not UTF-8"
    raise DataError(
        f"{path} is not a text file ({reason}). Convert it to UTF-8, as by iconv -f LATIN1 -t UTF-8 FILE, or leave it "
        "out: of a folder of texts by data.glob."
    )


def jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read (location for error messages, object) for each line that is not blank.

    Raises:
        DataError: a line is not a JSON object.
    """
    lines = enumerate(decode_file(path).split("\n"), 1)
    located = ((f"line {number} of {path}", line) for number, line in lines if line.strip())
    return [(where, json_object(line, where, path)) for where, line in located]


def json_object(line: str, where: str, path: Path) -> dict[str, Any]:
    """Parse a line as a JSON object; NaN and infinity become null, and half of a surrogate pair U+FFFD.

    Raises:
        DataError: the line is not JSON, or not an object.
    """
    try:
        row = json.loads(line, parse_constant=lambda _: None)
        if "\\ud" in line.lower():
            text = json.dumps(row, ensure_ascii=False)
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if whole != text:
                warn_of_surrogates(path)
                row = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error}). Write one object per line.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object. Write one object with text fields per line.")
    return row


@cache
def warn_of_surrogates(path: Path) -> None:
    """Warn once of a file with half of a surrogate pair, such as a cut emoji."""
    log_rank0(log.warning, f"{path}: contains halves of characters (lone surrogates). They are read as U+FFFD.")


def files_of(path: Path, glob: str) -> list[Path]:
    """List a file, or the matching files of a folder in the order of their paths, without hidden and system files.

    Capitals in names and in `glob` are equal to small letters. A warning counts the other files.

    Raises:
        DataError: no such file or folder, or no match.
    """
    if not path.exists():
        raise DataError(f"data.path={path}: no such file or folder. Set data.path=PATH.")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"data.path={path}: neither a file nor a folder. Set data.path=PATH.")
    pattern = glob.lower().split("/")
    found = list_folder(path, lambda file: matches(file.lower().split("/"), pattern))
    if not found.files:
        have = f" ({found.kinds()})" if found.others else ""
        raise DataError(
            f"data.glob={glob}: no matching file in folder {path}{have}. Add text, or set data.glob='*.md'."
        )
    found.report(f"data.path={path}", f"data.glob={glob}")
    return sorted(path / file for file in found.files)


def find_file(folder: Path, name: str) -> Path | None:
    """Find a file by its name; where it does not exist, by its name in other capitals."""
    if (folder / name).is_file():
        return folder / name
    same = sorted(path for path in folder.glob("*") if path.name.lower() == name.lower() and path.is_file())
    return same[0] if same else None


def warn_of_others(folder: Path, used: Collection[Path | None]) -> None:
    """Warn of the files of a folder that are not used, except hidden and system files."""
    others = sorted(p.name for p in folder.glob("*") if p.is_file() and p not in used and not is_hidden(p.name))
    if others:
        more = ", ..." if len(others) > 5 else ""
        log_rank0(
            log.warning, f"data.path={folder}: left out {counted(len(others), 'file')}: {', '.join(others[:5])}{more}."
        )


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the last parts of a path match the parts of a glob; `**` stands for any number of folders."""
    if not pattern:
        return True
    if pattern[-1] == "**":
        return any(matches(path[:n], pattern[:-1]) for n in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[-1], pattern[-1]) and matches(path[:-1], pattern[:-1])


def cut(text: str, share: float) -> tuple[str, str]:
    """Cut a text in two parts by characters."""
    bound = round(len(text) * share)
    return text[:bound], text[bound:]
