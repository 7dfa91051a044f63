"""The names of characters, as Python knows them: short texts in every installation."""

import re
import sys
import unicodedata
import zlib

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.stdlib import by_name

# Made by rule from a number or from the parts of a syllable: CJK UNIFIED IDEOGRAPH-4E00, HANGUL SYLLABLE GAG.
DERIVED = re.compile(r"[0-9A-F]{4,6}$|^HANGUL SYLLABLE ")


def names() -> list[str]:
    """Every name once, without those made by rule, in an order that says nothing of their neighbours' code points."""
    found = {unicodedata.name(chr(code), "") for code in range(sys.maxunicode + 1)}
    return sorted((n for n in found if n and not DERIVED.search(n)), key=lambda n: (zlib.crc32(n.encode()), n))


@register("data", "unicode_names")
class UnicodeNames(TokenWindows):
    """The names of Unicode's characters: LATIN SMALL LETTER A, TEDDY BEAR, ARABIC LIGATURE YEH WITH MEEM INITIAL FORM.

    A text is one name. They come in the order of their CRC-32, so that a name tells nothing about the next, and of 50
    such numbers 0 is for validation, 1 for testing, all others for training. Names that a rule makes from
    code points are left out. Newer versions of Python know more of them; a name keeps its split.
    """

    def __init__(
        self,
        *,
        context: PositiveInt = 64,
        tokenizer: TokenizerChoice = "char",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)

    def read(self) -> Texts:
        """One text per name."""
        return by_name((name, [name]) for name in names())
