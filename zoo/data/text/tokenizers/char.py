"""Character tokenizer."""

from collections.abc import Sequence

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.data.text.tokenizers.base import Tokenizer


@register("tokenizer", "char")
class Char(Tokenizer):
    """One token per character of the training text; other characters become U+FFFD."""

    UNKNOWN = "\N{REPLACEMENT CHARACTER}"

    def fit(self, texts: Sequence[str]) -> "Char":
        """Collect the characters of the texts."""
        return self._take(sorted(set().union(*texts) - {self.UNKNOWN}))

    def _take(self, characters: Sequence[str]) -> "Char":
        self.known = [*characters, self.UNKNOWN]
        self.pieces = [c.encode("utf-8", errors="replace") for c in self.known] + [b""]
        self.ids = {c: i for i, c in enumerate(self.known)}
        self.unknown = self.ids[self.UNKNOWN]
        return self

    def encode(self, text: str) -> list[int]:
        """Encode as one id per character."""
        return [self.ids.get(c, self.unknown) for c in text]

    def state(self) -> str:
        """Join all known characters in one string."""
        return "".join(self.known[:-1])

    @classmethod
    def load(cls, state: str) -> "Char":
        """Restore from the string of characters."""
        if not isinstance(state, str) or len(set(state)) < len(state) or cls.UNKNOWN in state:
            raise DataError("Damaged tokenizer: its characters are not a string without duplicates.")
        return cls()._take(state)
