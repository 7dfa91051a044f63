"""Word vectors from a file of another library: nearest words, analogies and vectors of texts."""

from pathlib import Path

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.data.text.tokenizers.word_level import WORDS
from zoo.io.word2vec_file import read_vectors


class WordVectors:
    """Words and their vectors, with the methods of a model that embeds words.

    Args:
        path: a file in a format of word2vec (`.bin`, `.txt`), fastText (`.vec`) or GloVe (`.txt`).

    Raises:
        DataError: not such a file.
    """

    registered_name = "word vectors"
    abilities = {"embed": "embed", "word_vectors": "word vectors"}  # noqa: RUF012  # as of models

    def __init__(self, path: str | Path) -> None:
        self.words, self.table = read_vectors(Path(path))
        self.rows = {word: i for i, word in enumerate(self.words)}

    def word_vectors(self) -> Tensor:
        """Vectors of `words` (N, D)."""
        return self.table

    def embed(self, items: str | list[str]) -> Tensor:
        """Words or texts -> vectors (N, D): of a word in the file, or the mean over the known words of a text.

        A word that is not in the file is looked up in small letters.

        Raises:
            ZooError: a text without a known word.
        """
        return torch.stack([self.embed_one(text) for text in ([items] if isinstance(items, str) else items)])

    def embed_one(self, text: str) -> Tensor:
        """Vector (D,) of a text."""
        if text in self.rows:
            return self.table[self.rows[text]]
        found = [self.rows.get(word, self.rows.get(word.lower())) for word in WORDS.findall(text)]
        known = [row for row in found if row is not None]
        if not known:
            raise ZooError(f"text={text!r}: no word of it is in the file. Use other words.")
        return self.table[known].mean(0)
