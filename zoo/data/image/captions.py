"""Read captions beside pictures: metadata.jsonl or metadata.csv, or one .txt file for each picture.

Both are conventions of other libraries: ImageFolder of Hugging Face's `datasets`, and WebDataset, whose archives hold
`000.jpg` and `000.txt`.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.core.cache import cache_root
from zoo.core.errors import DataError
from zoo.data.image import decode
from zoo.data.image.labels import FILES
from zoo.data.table.csv_file import read_table
from zoo.data.text.files import decode_file, jsonl
from zoo.io.atomic import atomic_folder

METADATA = ("metadata.jsonl", "metadata.csv")
TEXTS = ("text", "caption", "captions", "description", "prompt")  # names of the column of captions
MAX_UNPACKED = 2**32  # bytes of an archive


def read_captions(root: Path, files: list[str]) -> tuple[dict[str, list[str]], set[str]]:
    """Read the captions of each picture that has some, and list the files that hold them.

    A metadata file describes pictures by paths from its own folder. Several rows, or a JSON list of texts, give a
    picture several captions. A picture without a row has the lines of its .txt file, which has the same name.

    Args:
        root: the folder.
        files: of the pictures, relative to it.

    Raises:
        DataError: names the line and file of a row without file name or text, or of a picture that does not exist.
    """
    found, used, known = dict[str, list[str]](), set[str](), set(files)
    folders = {str(folder) for file in files for folder in PurePosixPath(file).parents}
    for folder in sorted(folders):
        for name in METADATA:
            path = root / folder / name
            if not path.is_file():
                continue
            used.add(str(PurePosixPath(folder, name)))
            for where, row in rows_of(path):
                picture, texts = described(where, row)
                file = os.path.normpath(os.path.join(folder, picture)).replace(os.sep, "/")
                if file not in known:
                    raise DataError(
                        f"{where}: no picture {picture} in {path.parent}. Correct the name, which is a path from the "
                        f"folder of {name}, or remove the row."
                    )
                found.setdefault(file, []).extend(texts)
    for file in files:
        beside = str(PurePosixPath(file).with_suffix(".txt"))
        if file in found or not (root / beside).is_file():
            continue
        used.add(beside)
        if lines := [plain(line) for line in decode_file(root / beside).split("\n") if line.strip()]:
            found[file] = lines
        else:
            raise DataError(f"line 1 of {root / beside}: no caption. Write one, or delete the file.")
    return found, used


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location for error messages, row) of a metadata file."""
    if path.suffix == ".jsonl":
        yield from jsonl(path)
        return
    heading, rows = read_table(path)
    for number, row in rows:
        yield f"line {number} of {path}", dict(zip(heading, row, strict=True))


def described(where: str, row: dict[str, Any]) -> tuple[str, list[str]]:
    """Name of the picture, and captions, of a row.

    Raises:
        DataError: the row does not have them, or a caption is empty or not a text.
    """
    columns = {key.lower(): key for key in row}
    file, text = (next((columns[name] for name in names if name in columns), None) for names in (FILES, TEXTS))
    if file is None or text is None:
        missing = f"{FILES[0]} (a path from the folder of this file)" if file is None else f"{TEXTS[0]} (the caption)"
        raise DataError(f"{where}: its fields are {', '.join(row) or 'none'}. Add the field {missing}.")
    given = row[text] if isinstance(row[text], list) else [row[text]]
    if not isinstance(row[file], str) or not row[file]:
        raise DataError(f"{where}: {file}={row[file]!r} is not a name. Write the path of a picture.")
    if not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise DataError(f"{where}: {text}={row[text]!r} is not a caption. Write a text that is not empty.")
    return row[file], [plain(one) for one in given]


def plain(caption: str) -> str:
    """A caption on one line, with single spaces."""
    return " ".join(caption.split())


def unpacked(archive: Path) -> Path:
    """Unpack the pictures, texts and metadata of a WebDataset archive once, below the cache folder: their folder.

    Raises:
        DataError: not an archive, too large, or a member that would leave the folder.
    """
    state = archive.stat()
    key = hashlib.blake2b(f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}".encode(), digest_size=8)
    folder = cache_root() / "unpacked" / f"{archive.stem}-{key.hexdigest()}"
    if folder.is_dir():
        return folder
    total = 0
    try:
        # Not compressed, so that nothing expands.
        with atomic_folder(folder) as draft, tarfile.open(archive, "r:") as members:
            for member in members:
                name = PurePosixPath(member.name)
                if not member.isfile() or not (
                    name.suffix.lower() in (*decode.SUFFIXES, ".txt") or name.name in METADATA
                ):
                    continue
                total += member.size
                if total > MAX_UNPACKED:
                    raise DataError(
                        f"data.path={archive}: more than {MAX_UNPACKED >> 30} GiB of pictures. Unpack it, and give the "
                        f"folder."
                    )
                members.extract(member, draft, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"data.path={archive}: not an archive that can be read ({error}). Make it by tar cf.") from None
    return folder
