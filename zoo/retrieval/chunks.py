"""Chunks of texts: paragraphs, joined or cut to a size, with their place in the source."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

PARAGRAPH = re.compile(r"[^\S\n]*\S.*?(?=\n[^\S\n]*\n|\Z)", re.DOTALL)
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Chunk:
    """A part of a text: text[begin:end]."""

    text: str
    begin: int
    end: int


def chunks(text: str, size: int = 150, overlap: int = 20) -> Iterator[Chunk]:
    """Cut a text into chunks of at most `size` words.

    Paragraphs are joined as long as they fit. A longer paragraph is cut, and its parts share `overlap` words.
    """
    begin, end, words = 0, 0, 0
    for found in PARAGRAPH.finditer(text):
        places = [word.span() for word in WORD.finditer(text, *found.span())]
        if words and words + len(places) > size:
            yield Chunk(text[begin:end], begin, end)
            words = 0
        if len(places) > size:
            for first in range(0, max(len(places) - overlap, 1), size - overlap):
                part = places[first : first + size]
                yield Chunk(text[part[0][0] : part[-1][1]], part[0][0], part[-1][1])
            continue
        begin = begin if words else places[0][0]
        end, words = places[-1][1], words + len(places)
    if words:
        yield Chunk(text[begin:end], begin, end)
