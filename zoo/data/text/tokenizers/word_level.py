"""Tokenizer of whole words, for word vectors."""

import re
from collections import Counter
from collections.abc import Sequence

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.tokenizers.base import Tokenizer

WORDS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # don't is one word


@register("tokenizer", "word_level")
class WordLevel(Tokenizer):
    """Words in small letters, the most frequent first; other words are one unknown id.

    Spaces and punctuation are left out, so a decoded text is not the original.

    Args:
        vocab_size: maximum number of ids: words, the unknown word, the end of text.
        min_count: occurrences from which on a word has its own id.
    """

    UNKNOWN = "\N{REPLACEMENT CHARACTER}"
    lowercase = True

    def __init__(self, *, vocab_size: PositiveInt = 30_000, min_count: PositiveInt = 5) -> None:
        self.wanted, self.min_count = vocab_size, min_count

    def fit(self, texts: Sequence[str]) -> "WordLevel":
        """Count words; ties are broken by spelling.

        Raises:
            DataError: no word is frequent enough.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(WORDS.findall(text.lower()))
        frequent = [word for word, count in counts.items() if count >= self.min_count]
        ranked = sorted(frequent, key=lambda word: (-counts[word], word))[: max(self.wanted - 2, 0)]
        if not ranked:
            raise DataError(
                f"data.tokenizer.min_count={self.min_count}: no word occurs so often, or vocab_size={self.wanted} "
                f"leaves no room. Lower min_count, or give more text."
            )
        return self._take(ranked)

    def _take(self, words: Sequence[str]) -> "WordLevel":
        self.words = list(words)
        self.pieces = [f" {word}".encode() for word in [*self.words, self.UNKNOWN]] + [b""]
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.unknown = len(self.words)
        return self

    def encode(self, text: str) -> list[int]:
        """Encode as one id per word."""
        return [self.ids.get(word, self.unknown) for word in WORDS.findall(text.lower())]

    def state(self) -> list[str]:
        """Return the known words."""
        return self.words

    @classmethod
    def load(cls, state: list[str]) -> "WordLevel":
        """Restore from the list of words."""
        if not isinstance(state, list) or not all(isinstance(word, str) for word in state):
            raise DataError("Damaged tokenizer: its words are not a list of strings.")
        return cls(vocab_size=len(state) + 2, min_count=1)._take(state)
