"""Character tokenizer."""

from collections.abc import Sequence

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.data.text.tokenizers.base import Tokenizer


@register("tokenizer", "char")
class Char(Tokenizer):
    """One identifier per character of the training text; any other character becomes U+FFFD."""

    UNKNOWN = "\N{REPLACEMENT CHARACTER}"

    def fit(self, texts: Sequence[str]) -> "Char":
        """Learn which characters there are."""
        return self._take(sorted(set().union(*texts) - {self.UNKNOWN}))

    def _take(self, characters: Sequence[str]) -> "Char":
        self.known = [*characters, self.UNKNOWN]
        self.pieces = [c.encode("utf-8", errors="replace") for c in self.known] + [b""]
        self.ids = {c: i for i, c in enumerate(self.known)}
        self.unknown = self.ids[self.UNKNOWN]
        return self

    def encode(self, text: str) -> list[int]:
        """One identifier per character."""
        return [self.ids.get(c, self.unknown) for c in text]

    def state(self) -> str:
        """All known characters in one string."""
        return "".join(self.known[:-1])

    @classmethod
    def load(cls, state: str) -> "Char":
        """From the string of characters."""
        if not isinstance(state, str) or len(set(state)) < len(state) or cls.UNKNOWN in state:
            raise DataError("the tokenizer's characters are damaged: they are no string of different ones.")
        return cls()._take(state)
