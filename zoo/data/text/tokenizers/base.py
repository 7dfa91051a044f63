"""Base class of tokenizers, and their serialization to a string.

A tokenizer is a table of byte strings, one per token id, so decoding is concatenation. The last id is the end of a
text, which also begins one. Every text can be encoded: unknown characters become U+FFFD, and unknown words bytes.

    tokenizer = BPE(vocab_size=512).fit(["some text"])
    restored = loads(dumps(tokenizer))  # the string that a checkpoint holds in its `DataSpec`
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import DataError, ZooError
from zoo.core.spaces import ABSENT

BYTES = [bytes([b]) for b in range(256)]


class Tokenizer:
    """Base class of tokenizers. A subclass fills `pieces` in `fit` and provides `encode`, `state` and `load`."""

    registered_name: ClassVar[str]
    pieces: list[bytes]  # bytes of each id; empty for the end of text
    unknown: int = -1  # id of unknown characters, if there is one
    lowercase: bool = False  # text is lowercased before encoding
    gap: str = ""  # between a text and one that continues it, if white space does not end the first
    prose: bool = True  # bits per byte compare with other tokenizers of the same text; false for a notation
    chat_format: str = ""  # prompts of the training: "text" as they are, "chat" see `zoo.data.text.chat`; else unknown

    @property
    def vocab_size(self) -> int:
        """Number of ids, which run from 0 to vocab_size - 1."""
        return len(self.pieces)

    @property
    def end(self) -> int:
        """The id after a text."""
        return len(self.pieces) - 1

    @property
    def begin(self) -> int:
        """The id before a text, by default the end of the previous one."""
        return self.end

    @property
    def ends(self) -> list[int]:
        """All ids that end a text; `end` is the one after texts of training data."""
        return [self.end]

    @property
    def affixes(self) -> tuple[list[int], list[int]]:
        """Ids before and after a text that a model reads."""
        return [self.begin], []

    @property
    def separator(self) -> list[int]:
        """Ids between two texts of a stream, which starts with `begin`."""
        return [self.end] if self.begin == self.end else [self.end, self.begin]

    def special_id(self, text: str) -> int | None:
        """Id of a special token that is spelled like this, or None."""
        return None

    def fit(self, texts: Sequence[str]) -> "Tokenizer":
        """Learn the vocabulary, deterministically."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Encode a text as ids, without the end."""
        raise NotImplementedError

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a text for a model to read, with the special tokens around it."""
        before, after = self.affixes
        return [*before, *self.encode(text), *after]

    def encode_continuation(self, text: str) -> list[int]:
        """Encode a text that follows another one directly."""
        return self.encode(text)

    def encode_all(self, texts: Sequence[str]) -> list[Tensor]:
        """Encode many texts, each int32 (T,)."""
        return [torch.tensor(self.encode(text), dtype=torch.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join([self.pieces[i] for i in ids]).decode("utf-8", errors="replace")

    def state(self) -> Any:
        """Return plain values for `load`."""
        raise NotImplementedError

    @classmethod
    def load(cls, state: Any) -> "Tokenizer":
        """Restore a tokenizer from its `state`."""
        raise NotImplementedError


def dumps(tokenizer: Tokenizer) -> str:
    """Serialize a tokenizer to a string."""
    found = {"name": tokenizer.registered_name, "state": tokenizer.state()}
    return json.dumps(found | ({"chat_format": tokenizer.chat_format} if tokenizer.chat_format else {}))


def loads(text: str, vocab_size: int | None = None) -> Tokenizer:
    """Restore a tokenizer from `dumps`; only registered classes are built.

    Args:
        text: string of `dumps`.
        vocab_size: required number of ids; None accepts any.

    Raises:
        DataError: the string is damaged, or the number of ids differs.
    """
    try:
        values = json.loads(text)
        kind: Any = registry.get("tokenizer", str(values["name"]))
        tokenizer: Tokenizer = kind.load(values["state"])
        tokenizer.chat_format = str(values.get("chat_format", ""))
    except ZooError:
        raise
    except Exception as error:  # values of any type, from an untrusted file
        raise DataError(f"Damaged tokenizer: it cannot be read ({' '.join(str(error).split())[:200]}).") from None
    if vocab_size not in (None, tokenizer.vocab_size):
        raise DataError(f"Damaged tokenizer: it has {tokenizer.vocab_size} tokens, and the data {vocab_size}.")
    return tokenizer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tensor:
    """Texts -> tokens (N, length), int64, `ABSENT` after each text.

    Raises:
        DataError: a text of more tokens.
    """
    tokens = torch.full((len(texts), length), ABSENT)
    for row, text in zip(tokens, texts, strict=True):
        found = tokenizer.encode(text)
        if len(found) > length:
            raise DataError(f"text={text!r}: {len(found)} tokens, more than {length}. Shorten it.")
        row[: len(found)] = torch.tensor(found, dtype=torch.int64)
    return tokens
