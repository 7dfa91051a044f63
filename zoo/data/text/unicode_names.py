"""Names of Unicode characters: short texts in every Python installation."""

import re
import sys
import unicodedata
import zlib

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.stdlib import by_name

# Derived by rule from a code point or a syllable: CJK UNIFIED IDEOGRAPH-4E00, HANGUL SYLLABLE GAG.
DERIVED = re.compile(r"[0-9A-F]{4,6}$|^HANGUL SYLLABLE ")


def names() -> list[str]:
    """List the names that are not derived by rule, in the order of their CRC-32, so that neighbours are unrelated."""
    found = {unicodedata.name(chr(code), "") for code in range(sys.maxunicode + 1)}
    return sorted((n for n in found if n and not DERIVED.search(n)), key=lambda n: (zlib.crc32(n.encode()), n))


@register("data", "unicode_names")
class UnicodeNames(TokenWindows):
    """Names of Unicode characters: LATIN SMALL LETTER A, TEDDY BEAR, ARABIC LIGATURE YEH WITH MEEM INITIAL FORM.

    A text is one name, in the order of their CRC-32, so that neighbours are unrelated. A CRC-32 of 0 modulo 50 is for
    validation, 1 for testing. Names derived by rule from code points are left out. Newer Python versions have more
    names, and a name keeps its split.
    """

    licence = "Unicode-3.0"

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
        """List one text per name."""
        return by_name((name, [name]) for name in names())
