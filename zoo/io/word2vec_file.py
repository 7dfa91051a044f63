"""Word vectors in the text and binary formats of word2vec, which other libraries read and write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.core.errors import ConfigError, DataError
from zoo.io.atomic import atomic_replace

SUFFIXES = (".txt", ".bin", ".npy")
READ = (".txt", ".vec", ".bin")  # suffixes of files with words and vectors


def write_vectors(path: Path, words: Sequence[str], vectors: Tensor) -> int:
    """Write words with their vectors: `.txt`, `.bin` (float32, little-endian), or `.npy` for the vectors alone.

    A space ends a word in these formats, so words with spaces, and repeated ones, are left out of `.txt` and `.bin`.

    Args:
        path: the file.
        words: N words.
        vectors: (N, D).

    Returns:
        The number of vectors that were written.

    Raises:
        ConfigError: another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out={path}: not a format of vectors. Use {', '.join(SUFFIXES)}.")
    table = vectors.detach().cpu().float().numpy().astype("<f4")
    if path.suffix == ".npy":
        with atomic_replace(path) as draft, draft.open("wb") as file:
            np.save(file, table)
        return len(table)
    rows = {word: i for i, word in reversed(list(enumerate(words))) if word and not any(map(str.isspace, word))}
    kept = sorted((i, word) for word, i in rows.items())
    with atomic_replace(path) as draft, draft.open("wb") as file:
        file.write(f"{len(kept)} {table.shape[1]}\n".encode())
        for i, word in kept:
            numbers = table[i].tobytes() if path.suffix == ".bin" else " ".join(map(repr, table[i].tolist())).encode()
            file.write(word.encode() + b" " + numbers + b"\n")
    return len(kept)


def read_vectors(path: Path) -> tuple[list[str], Tensor]:
    """Read words and their vectors (N, D): `.bin` is binary, all other files are text.

    The text form is that of word2vec and fastText, or that of GloVe, which has no first line of sizes. Of a repeated
    word, the first vector is kept. Bytes that are not UTF-8 become U+FFFD, as in files that cut words.

    Raises:
        DataError: not such a file; names the line, or the word, of the first fault.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Give a file of word vectors.") from None
    words, table = _read_binary(path, raw) if path.suffix == ".bin" else _read_text(path, raw)
    if not np.isfinite(table).all():
        word = words[int((~np.isfinite(table)).any(1).argmax())]
        raise DataError(f"{path}: the vector of {word!r} is not finite. Write it again.")
    rows = {word: i for i, word in reversed(list(enumerate(words)))}
    kept = sorted(rows.values())
    return [words[i] for i in kept], torch.from_numpy(table[kept])


def _sizes(line: bytes) -> tuple[int, int] | None:
    """Numbers of words and dimensions in a first line; None if it is something else."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _read_binary(path: Path, raw: bytes) -> tuple[list[str], np.ndarray]:
    end = raw.find(b"\n", 0, 100)
    sizes = _sizes(raw[: max(end, 0)])
    if sizes is None:
        raise DataError(f"{path}: not the binary format of word2vec, which begins with two numbers. Name text .txt.")
    (n, dim), place, words = sizes, end + 1, list[str]()
    if 4 * n * dim > len(raw):
        raise DataError(f"{path}: too short for {n:,} vectors of {dim}. It was cut off; copy it again.")
    table = np.empty((n, dim), np.float32)
    for row in range(n):
        space = raw.find(b" ", place)
        if space < 0 or space + 1 + 4 * dim > len(raw):
            raise DataError(f"{path}: ends after {row:,} of {n:,} vectors. It was cut off; copy it again.")
        words.append(raw[place:space].lstrip(b"\n").decode("utf-8", errors="replace"))
        place = space + 1 + 4 * dim
        table[row] = np.frombuffer(raw, "<f4", dim, space + 1)
    return words, table


def _read_text(path: Path, raw: bytes) -> tuple[list[str], np.ndarray]:
    lines = raw.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    sizes = _sizes(lines[0]) if lines else None
    first = 0 if sizes is None else 1
    rows = lines[first:]
    if not rows:
        raise DataError(f"{path}: no vectors. Give a file of lines with a word and its numbers.")
    dim = len(rows[0].split()) - 1 if sizes is None else sizes[1]
    if sizes is not None and sizes[0] != len(rows):
        raise DataError(f"{path}: {len(rows):,} lines of vectors, and the first line has {sizes[0]:,}. Copy it again.")
    words, table = list[str](), np.empty((len(rows), dim), np.float32)
    for row, line in enumerate(rows):
        word, *numbers = line.rstrip().rsplit(b" ", dim) if dim else [line]
        try:
            if not dim or len(numbers) != dim:
                raise ValueError(f"{len(numbers)} numbers, and not {dim}")
            table[row] = np.array(numbers, np.float32)
        except ValueError as error:
            raise DataError(
                f"line {row + first + 1} of {path}: {error}. Write a word and {dim} numbers, with spaces between them."
            ) from None
        words.append(word.decode("utf-8", errors="replace"))
    return words, table
