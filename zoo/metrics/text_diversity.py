"""Text statistics: distinct n-grams, repetition, share that parses as Python. Words are separated by white space."""

import math
from collections.abc import Iterator, Sequence

from zoo.metrics.python_source import parses


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams of all texts over their number (Li et al. 2016, 1510.03055): 1 without repetition.

    It decreases with the amount of text: compare values at equal numbers of words. nan without n-grams.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """Share of word n-grams that occurred earlier in the same text, averaged over texts of at least n words.

    0 means none; loops are close to 1 (Welleck et al. 2020, 1908.04319, `seq-rep-n`). nan without such texts.
    """
    shares = [1 - len(set(grams)) / len(grams) for text in texts if (grams := list(_grams(text, n)))]
    return sum(shares) / len(shares) if shares else math.nan


def share_that_parses(texts: Sequence[str]) -> float:
    """Share of non-blank texts that this Python's parser accepts as a module, without executing them.

    nan if all are blank. Too deeply nested texts count as failures.
    """
    parsed = [parses(text) for text in texts if text.strip()]
    return sum(parsed) / len(parsed) if parsed else math.nan


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = text.split()
    return zip(*(words[i:] for i in range(n)), strict=False)
