"""Word tokenizer."""

import re
from collections import Counter
from collections.abc import Sequence

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.tokenizers.base import BYTES, Tokenizer

WORDS = re.compile(r" ?[^\W_]{1,255}|\s|[^\w\s]|_")  # every character belongs to exactly one match


@register("tokenizer", "word")
class Word(Tokenizer):
    """The most frequent words, each with the space before it; other words are spelled in bytes.

    Args:
        vocab_size: maximum number of ids: 256 bytes, words, the end of text.
    """

    def __init__(self, *, vocab_size: PositiveInt = 8192) -> None:
        self.wanted = vocab_size

    def fit(self, texts: Sequence[str]) -> "Word":
        """Count words; ties are broken by spelling."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(WORDS.findall(text))
        room = max(self.wanted - len(BYTES) - 1, 0)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return self._take([word for word in ranked if len(word.encode()) > 1][:room])

    def _take(self, words: Sequence[str]) -> "Word":
        self.words = list(words)
        self.pieces = [*BYTES, *(word.encode() for word in self.words), b""]
        self.ids = {word: i for i, word in enumerate(self.words, len(BYTES))}
        return self

    def encode(self, text: str) -> list[int]:
        """Encode known words as one id, other words as bytes."""
        found: list[int] = []
        for word in WORDS.findall(text):
            known = self.ids.get(word)
            found.extend(word.encode("utf-8", errors="replace") if known is None else (known,))
        return found

    def state(self) -> list[str]:
        """Return the known words."""
        return self.words

    @classmethod
    def load(cls, state: list[str]) -> "Word":
        """Restore from the list of words."""
        if not isinstance(state, list) or not all(isinstance(word, str) for word in state):
            raise DataError("Damaged tokenizer: its words are not a list of strings.")
        return cls(vocab_size=len(state) + len(BYTES) + 1)._take(state)
