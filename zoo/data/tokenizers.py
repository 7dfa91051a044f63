"""Text to integers and back: characters, bytes, words and byte pairs.

Every tokenizer is a table of byte strings, one per identifier, so decoding is concatenation, and the last
identifier is the end of a text, which also begins one. No text is ever refused: what a character tokenizer
does not know becomes U+FFFD, words fall back on bytes, and the byte and byte-pair tokenizers return any text unchanged.

    tokenizer = BPE(vocab_size=512).fit(["some text"])
    again = loads(dumps(tokenizer))          # a plain string: what a checkpoint keeps in `DataSpec.tokenizer`
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo import registry
from zoo.errors import ZooError
from zoo.registry import register
from zoo.spec import PositiveInt

BYTES = [bytes([b]) for b in range(256)]
WORDS = re.compile(r" ?[^\W_]{1,255}|\s|[^\w\s]|_")  # every character belongs to exactly one match


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


def loads(text: str) -> Tokenizer:
    """The tokenizer that `dumps` wrote; only registered kinds can be reached.

    Raises:
        ZooError: anything else.
    """
    try:
        values = json.loads(text)
        kind: Any = registry.get("tokenizer", str(values["name"]))
        tokenizer: Tokenizer = kind.load(values["state"])
    except ZooError:
        raise
    except Exception as error:  # values of any type, from a file that anybody may have written
        raise ZooError(f"a tokenizer cannot be read ({' '.join(str(error).split())[:200]}): it is damaged.") from error
    return tokenizer


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
            raise ZooError("the tokenizer's characters are damaged: they are no string of different ones.")
        return cls()._take(state)


@register("tokenizer", "byte")
class Byte(Tokenizer):
    """The 256 bytes of UTF-8: nothing to learn, nothing unknown."""

    def __init__(self) -> None:
        self.pieces = [*BYTES, b""]

    def fit(self, texts: Sequence[str]) -> "Byte":
        """Nothing to learn."""
        return self

    def encode(self, text: str) -> list[int]:
        """One identifier per byte."""
        return list(text.encode("utf-8", errors="replace"))

    def encode_all(self, texts: Sequence[str]) -> list[Tensor]:
        """Many texts at once, each int32 (T,)."""
        return [
            torch.frombuffer(bytearray(t.encode() or b"\0"), dtype=torch.uint8).int()[: len(t.encode())] for t in texts
        ]

    def state(self) -> None:
        """Nothing."""

    @classmethod
    def load(cls, state: None) -> "Byte":
        """Nothing to restore."""
        return cls()


@register("tokenizer", "word")
class Word(Tokenizer):
    """The most frequent words, each with the space before it, and signs; other words are spelled in bytes."""

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
        """Words that are known, bytes of those that are not."""
        found: list[int] = []
        for word in WORDS.findall(text):
            known = self.ids.get(word)
            found.extend(word.encode("utf-8", errors="replace") if known is None else (known,))
        return found

    def state(self) -> list[str]:
        """The known words."""
        return self.words

    @classmethod
    def load(cls, state: list[str]) -> "Word":
        """From the list of words."""
        if not isinstance(state, list) or not all(isinstance(word, str) for word in state):
            raise ZooError("the tokenizer's words are damaged: they are no list of texts.")
        return cls(vocab_size=len(state) + len(BYTES) + 1)._take(state)


@register("tokenizer", "bpe")
class BPE(Tokenizer):
    """Byte-pair encoding (Sennrich et al. 2016, 1508.07909) over bytes, trained with the `tokenizers` library.

    Pairs are merged within `PIECE` only. A line break and the indentation after it are a piece of their own,
    so that a word is the same token at every indentation. Splitting here and asking the library once per
    distinct piece is several times faster than its own splitting.

    Args:
        vocab_size: identifiers in all: 256 bytes, merges, the end of text; smaller where the text has too few pairs.
        lowercase: read all text in small letters, and so write them.
    """

    # At most 255 of a kind at once: the library's time grows faster than a piece does, and a line may have 100 MB.
    PIECE = re.compile(
        r"\r?\n[\r\n]{0,255}[ \t]{0,255}| ?[^\W\d_]{1,255}| ?\d{1,3}|_{1,255}| ?[^\w\s]{1,255}|[^\S\n]{1,255}|.",
        re.DOTALL,
    )
    KEPT = 1_000_000  # pieces whose tokens are remembered: a large corpus never stops bringing new ones
    LEARN_FROM = 4_000_000  # characters: the merges of a larger text are learned from the beginning of each part of it

    def __init__(self, *, vocab_size: PositiveInt = 2048, lowercase: bool = False) -> None:
        self.wanted, self.lowercase = vocab_size, lowercase

    def pieces_of(self, text: str) -> list[str]:
        """Where a text may be cut into tokens."""
        return self.PIECE.findall(text.lower() if self.lowercase else text)

    def fit(self, texts: Sequence[str]) -> "BPE":
        """Learn the merges."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import models, normalizers, pre_tokenizers, trainers

        share = min(1.0, self.LEARN_FROM / max(sum(map(len, texts)), 1))
        backend = Backend(models.BPE())
        pieces = pre_tokenizers.Split("\0", "removed")
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
        trainer = trainers.BpeTrainer(
            vocab_size=max(self.wanted - 1, len(BYTES)),
            initial_alphabet=sorted(byte_alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(
            ("\0".join(self.pieces_of(text[: math.ceil(len(text) * share)])) for text in texts), trainer
        )
        backend.pre_tokenizer = as_bytes
        if self.lowercase:
            backend.normalizer = normalizers.Lowercase()  # what `state` tells
        return self._take(backend)

    def _take(self, backend: Any) -> "BPE":
        self.backend, self.ids = backend, dict[str, list[int]]()
        alphabet = byte_alphabet()
        spelled = sorted(backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        self.pieces = [bytes([alphabet[c] for c in token]) for token, _ in spelled] + [b""]
        return self

    def encode(self, text: str) -> list[int]:
        """Merges in the order they were learned, within each piece."""
        found = self.pieces_of(text.encode("utf-8", errors="replace").decode())  # "?" for lone surrogates
        if len(self.ids) > self.KEPT:
            self.ids.clear()
        new = [piece for piece in dict.fromkeys(found) if piece not in self.ids]
        self.ids.update(zip(new, [e.ids for e in self.backend.encode_batch_fast(new)], strict=True))
        return list(chain.from_iterable([self.ids[piece] for piece in found]))

    def state(self) -> str:
        """The library's own JSON."""
        return self.backend.to_str()

    @classmethod
    def load(cls, state: str) -> "BPE":
        """From the library's JSON, of which the vocabulary, the merges and small letters count and nothing else."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import models, normalizers, pre_tokenizers

        saved = json.loads(state)
        model, lowercase = saved["model"], saved.get("normalizer") == {"type": "Lowercase"}
        vocabulary: dict[str, int] = model["vocab"]
        pairs: list[Any] = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]  # old, new form
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        alphabet, known = byte_alphabet(), set(pieces)
        if [vocabulary[p] for p in pieces] != list(range(len(pieces))) or not alphabet.keys() <= known:
            raise ZooError("the tokenizer's vocabulary is damaged: it does not number all bytes and merges from 0.")
        if not alphabet.keys() >= set("".join(pieces)) or not all(
            len(p) == 2 and {*p, "".join(p)} <= known for p in pairs
        ):
            raise ZooError("the tokenizer's merges are damaged: they join what its vocabulary does not hold.")
        backend = Backend(models.BPE(vocabulary, pairs))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        if lowercase:
            backend.normalizer = normalizers.Lowercase()
        return cls(lowercase=lowercase)._take(backend)


def byte_alphabet() -> dict[str, int]:
    """The characters by which the `tokenizers` library writes bytes: printable Latin-1 stands for itself."""
    itself = [b for b in range(256) if chr(b).isprintable() and b not in (0x20, 0xA0, 0xAD)]
    moved = sorted(set(range(256)) - set(itself))
    return {chr(b): b for b in itself} | {chr(256 + i): b for i, b in enumerate(moved)}
