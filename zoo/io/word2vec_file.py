"""Word vectors in the text and binary formats of word2vec, which other libraries read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.io.atomic import atomic_replace

SUFFIXES = (".txt", ".bin", ".npy")


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
