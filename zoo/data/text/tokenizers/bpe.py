"""Byte-pair encoding."""

import json
import math
import re
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.tokenizers.base import BYTES, Tokenizer


@register("tokenizer", "bpe")
class BPE(Tokenizer):
    """Byte-pair encoding over bytes, by the `tokenizers` library (Sennrich et al. 2016, 1508.07909).

    Pairs are merged within `PIECE` only. A line break and the indentation after it are a separate piece, so that a word
    is the same token at every indentation. Text is split in Python and each distinct piece is encoded once, which is
    several times faster than the library's splitting.

    Args:
        vocab_size: maximum number of ids: 256 bytes, merges, the end of text.
        lowercase: lowercase all text, character by character.
        min_frequency: minimum number of occurrences of a merged pair. A small text gets few merges (20 kB: 24; 200 kB:
            some 200), because a model cannot learn a token from a few occurrences.
    """

    # At most 255 characters: the library's time grows faster than a piece, and a line may have 100 MB.
    PIECE = re.compile(
        r"\r?\n[\r\n]{0,255}[ \t]{0,255}| ?[^\W\d_]{1,255}| ?\d{1,3}|_{1,255}| ?[^\w\s]{1,255}|[^\S\n]{1,255}|.",
        re.DOTALL,
    )
    KEPT = 1_000_000  # cached pieces: a large corpus has ever more
    LEARN_FROM = 4_000_000  # characters; of larger data only the beginning of each text is used for training

    def __init__(
        self, *, vocab_size: PositiveInt = 2048, lowercase: bool = False, min_frequency: PositiveInt = 100
    ) -> None:
        self.wanted, self.lowercase, self.min_frequency = vocab_size, lowercase, min_frequency

    def pieces_of(self, text: str) -> list[str]:
        """Split a text into pieces, across which tokens do not extend."""
        from tokenizers.normalizers import Lowercase

        return self.PIECE.findall(Lowercase().normalize_str(text) if self.lowercase else text)

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
            min_frequency=self.min_frequency,
            initial_alphabet=sorted(byte_alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(
            ("\0".join(self.pieces_of(text[: math.ceil(len(text) * share)])) for text in texts), trainer
        )
        backend.pre_tokenizer = as_bytes
        if self.lowercase:
            backend.normalizer = normalizers.Lowercase()  # part of `state`
        return self._take(backend)

    def _take(self, backend: Any) -> "BPE":
        self.backend, self.ids = backend, dict[str, list[int]]()
        alphabet = byte_alphabet()
        spelled = sorted(backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        self.pieces = [bytes([alphabet[c] for c in token]) for token, _ in spelled] + [b""]
        return self

    def encode(self, text: str) -> list[int]:
        """Apply the merges in the order of training, within each piece."""
        found = self.pieces_of(text.encode("utf-8", errors="replace").decode())  # "?" for lone surrogates
        if len(self.ids) > self.KEPT:
            self.ids.clear()
        new = [piece for piece in dict.fromkeys(found) if piece not in self.ids]
        self.ids.update(zip(new, [e.ids for e in self.backend.encode_batch_fast(new)], strict=True))
        return list(chain.from_iterable([self.ids[piece] for piece in found]))

    def state(self) -> str:
        """Return the library's JSON."""
        return self.backend.to_str()

    @classmethod
    def load(cls, state: str) -> "BPE":
        """Restore from the library's JSON; only vocabulary, merges and lowercasing are used."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import models, normalizers, pre_tokenizers

        saved = json.loads(state)
        model, lowercase = saved["model"], saved.get("normalizer") == {"type": "Lowercase"}
        vocabulary: dict[str, int] = model["vocab"]
        pairs: list[Any] = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]  # old, new form
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        alphabet, known = byte_alphabet(), set(pieces)
        if [vocabulary[p] for p in pieces] != list(range(len(pieces))) or not alphabet.keys() <= known:
            raise DataError("Damaged tokenizer: its vocabulary does not number all bytes and merges from 0.")
        if not alphabet.keys() >= set("".join(pieces)) or not all(
            len(p) == 2 and {*p, "".join(p)} <= known for p in pairs
        ):
            raise DataError("Damaged tokenizer: its merges are not in its vocabulary.")
        backend = Backend(models.BPE(vocabulary, pairs))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        if lowercase:
            backend.normalizer = normalizers.Lowercase()
        return cls(lowercase=lowercase)._take(backend)


def portable_pattern() -> str:
    """`BPE.PIECE` for other engines, which differ on which characters are letters: classes become ranges."""
    everything = "".join(chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    pattern = BPE.PIECE.pattern
    for kind in (r"[^\W\d_]", r"[^\w\s]", r"[^\S\n]", r"\d"):
        runs = re.findall(f"{kind}+", everything)
        spans = [f"\\x{{{ord(run[0]):X}}}-\\x{{{ord(run[-1]):X}}}" for run in runs]
        pattern = pattern.replace(kind, f"[{''.join(spans)}]")
    return f"(?m:{pattern})"  # m: a dot may be a line break


def byte_alphabet() -> dict[str, int]:
    """Map the characters that stand for bytes in the `tokenizers` library; printable Latin-1 is unchanged."""
    itself = [b for b in range(256) if chr(b).isprintable() and b not in (0x20, 0xA0, 0xAD)]
    moved = sorted(set(range(256)) - set(itself))
    return {chr(b): b for b in itself} | {chr(256 + i): b for i, b in enumerate(moved)}
