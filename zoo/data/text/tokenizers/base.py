"""Text to integers and back: characters, bytes, words and byte pairs.

Every tokenizer is a table of byte strings, one per identifier, so decoding is concatenation, and the last
identifier is the end of a text, which also begins one. No text is ever refused: what a character tokenizer
does not know becomes U+FFFD, words fall back on bytes, and the byte and byte-pair tokenizers return any text unchanged.

    tokenizer = BPE(vocab_size=512).fit(["some text"])
    again = loads(dumps(tokenizer))          # a plain string: what a checkpoint keeps in `DataSpec.tokenizer`
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import DataError, ZooError

BYTES = [bytes([b]) for b in range(256)]


class Tokenizer:
    """What all kinds share. A subclass fills `pieces` in `fit` and writes `encode`, `state` and `load`."""

    registered_name: ClassVar[str]
    pieces: list[bytes]  # what each identifier stands for; the end of text stands for nothing
    unknown: int = -1  # the identifier that stands for characters unknown, if the kind needs one
    lowercase: bool = False  # is all text read in small letters?

    @property
    def vocab_size(self) -> int:
        """Identifiers run from 0 to vocab_size - 1."""
        return len(self.pieces)

    @property
    def end(self) -> int:
        """The identifier after a text."""
        return len(self.pieces) - 1

    @property
    def begin(self) -> int:
        """The identifier before a text: the end of the one before, unless a kind has another."""
        return self.end

    def fit(self, texts: Sequence[str]) -> "Tokenizer":
        """Learn the vocabulary; the same texts always give the same one."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """A text as identifiers, without the end."""
        raise NotImplementedError

    def encode_all(self, texts: Sequence[str]) -> list[Tensor]:
        """Many texts at once, each int32 (T,)."""
        return [torch.tensor(self.encode(text), dtype=torch.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Identifiers as text; bytes that are not UTF-8 become U+FFFD."""
        return b"".join([self.pieces[i] for i in ids]).decode("utf-8", errors="replace")

    def state(self) -> Any:
        """What `load` needs, as plain values."""
        raise NotImplementedError

    @classmethod
    def load(cls, state: Any) -> "Tokenizer":
        """Inverse of `state`."""
        raise NotImplementedError


def dumps(tokenizer: Tokenizer) -> str:
    """A tokenizer as one string."""
    return json.dumps({"name": tokenizer.registered_name, "state": tokenizer.state()})


def loads(text: str, vocab_size: int | None = None) -> Tokenizer:
    """Restore the tokenizer that `dumps` wrote; only registered kinds can be reached.

    Args:
        text: the string.
        vocab_size: the number of tokens that it must have; None is any.

    Raises:
        DataError: a damaged string, or another number of tokens.
    """
    try:
        values = json.loads(text)
        kind: Any = registry.get("tokenizer", str(values["name"]))
        tokenizer: Tokenizer = kind.load(values["state"])
    except ZooError:
        raise
    except Exception as error:  # values of any type, from an untrusted file
        raise DataError(f"a tokenizer cannot be read ({' '.join(str(error).split())[:200]}): it is damaged.") from error
    if vocab_size not in (None, tokenizer.vocab_size):
        raise DataError(
            f"the data has {vocab_size} tokens and its tokenizer {tokenizer.vocab_size}: the tokenizer is damaged."
        )
    return tokenizer
