"""How varied text is, how much it repeats itself, and whether code parses. Words are what white space separates."""

import math
from collections.abc import Iterator, Sequence

from zoo.metrics.python_source import parses


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams of all texts over their number (Li et al. 2016, 1510.03055): 1 if none comes twice.

    It falls as texts grow longer or more: compare values of equally many words. nan where there is no n-gram.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """Share of a text's word n-grams that came earlier in the same text, averaged over texts that have n words.

    0 is no repetition, and a loop comes near 1 (Welleck et al. 2020, 1908.04319, `seq-rep-n`). nan where no
    text has n words.
    """
    shares = [1 - len(set(grams)) / len(grams) for text in texts if (grams := list(_grams(text, n)))]
    return sum(shares) / len(shares) if shares else math.nan


def share_that_parses(texts: Sequence[str]) -> float:
    """Share of the texts, but for blank ones, that this Python's parser accepts as a module; none is executed.

    nan where all are blank. A text that nests too deeply for the parser does not parse.
    """
    parsed = [parses(text) for text in texts if text.strip()]
    return sum(parsed) / len(parsed) if parsed else math.nan


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = text.split()
    return zip(*(words[i:] for i in range(n)), strict=False)
