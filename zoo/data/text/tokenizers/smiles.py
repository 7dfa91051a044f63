"""Tokenizer of molecules in SMILES notation."""

from collections.abc import Sequence

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.smiles_syntax import TOKENS
from zoo.data.text.tokenizers.base import Tokenizer


@register("tokenizer", "smiles")
class SmilesTokens(Tokenizer):
    """One token per atom, bond, ring number or parenthesis of SMILES (Schwaller et al. 2018, arXiv:1711.04810).

    An atom in brackets is one token, and so are Br, Cl and ring numbers of two digits. Tokens that are not in the
    training texts become U+FFFD.
    """

    UNKNOWN = "\N{REPLACEMENT CHARACTER}"
    prose = False

    def fit(self, texts: Sequence[str]) -> "SmilesTokens":
        """Collect the tokens of the texts."""
        return self._take(sorted({token for text in texts for token in TOKENS.findall(text)} - {self.UNKNOWN}))

    def _take(self, tokens: Sequence[str]) -> "SmilesTokens":
        self.known = [*tokens, self.UNKNOWN]
        self.pieces = [token.encode("utf-8", errors="replace") for token in self.known] + [b""]
        self.ids = {token: i for i, token in enumerate(self.known)}
        self.unknown = self.ids[self.UNKNOWN]
        return self

    def encode(self, text: str) -> list[int]:
        """Encode as one id per token."""
        return [self.ids.get(token, self.unknown) for token in TOKENS.findall(text)]

    def state(self) -> list[str]:
        """Return the known tokens."""
        return self.known[:-1]

    @classmethod
    def load(cls, state: list[str]) -> "SmilesTokens":
        """Restore from the list of tokens."""
        good = isinstance(state, list) and all(isinstance(token, str) for token in state)
        if not good or len(set(state)) < len(state) or cls.UNKNOWN in state:
            raise DataError("Damaged tokenizer: its tokens are not a list of different strings.")
        return cls()._take(state)
