"""N-grams of letters in words, hashed to rows of a table (Bojanowski et al. 2016, arXiv:1607.04606)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fnv1a(text: str) -> int:
    """32-bit FNV-1a hash of the UTF-8 bytes, each extended with its sign as in the published program."""
    value = 2166136261
    for byte in text.encode():
        signed = byte - 256 if byte > 127 else byte
        value = (value ^ (signed & 0xFFFFFFFF)) * 16777619 & 0xFFFFFFFF
    return value


def letter_ngrams(word: str, shortest: int, longest: int) -> list[str]:
    """All n-grams of `<word>`, whose brackets mark its ends, without the whole and without a bracket alone."""
    marked = f"<{word}>"
    return [
        marked[i : i + n]
        for i in range(len(marked))
        for n in range(shortest, longest + 1)
        if i + n <= len(marked) and n < len(marked) and marked[i : i + n] not in ("<", ">")
    ]


def subword_rows(words: Sequence[str], shortest: int, longest: int, buckets: int) -> Tensor:
    """Buckets of the n-grams of each word, int64 (N, G), -1 after the last one."""
    rows = [[fnv1a(gram) % buckets for gram in letter_ngrams(word, shortest, longest)] for word in words]
    width = max(map(len, rows), default=0)
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows]).view(len(rows), width).long()
