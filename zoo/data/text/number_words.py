"""Numbers in words, in two languages: pairs of texts without files, whose translations are known exactly."""

import random
import zlib
from typing import Literal

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import TokenizerChoice
from zoo.data.text.paired import PairData, PairSplits

Language = Literal["de", "en", "fr"]
DIGITS = 6  # of the longest numbers

UNITS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    "de": "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept "
    "dix-huit dix-neuf",
}
TENS = {
    "en": "_ _ twenty thirty forty fifty sixty seventy eighty ninety",
    "de": "_ _ zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
    "fr": "_ _ vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt",
}
EN, DE, FR = (UNITS[language].split() for language in ("en", "de", "fr"))
EN_TENS, DE_TENS, FR_TENS = (TENS[language].split() for language in ("en", "de", "fr"))


def english(n: int) -> str:
    """A number from 0 to 999,999 in American English: forty-two thousand one hundred seven."""
    if n >= 1000:
        return f"{english(n // 1000)} thousand{f' {english(n % 1000)}' if n % 1000 else ''}"
    if n >= 100:
        return f"{EN[n // 100]} hundred{f' {english(n % 100)}' if n % 100 else ''}"
    return EN[n] if n < 20 else f"{EN_TENS[n // 10]}{f'-{EN[n % 10]}' if n % 10 else ''}"


def german(n: int) -> str:
    """A number from 0 to 999,999 in German, as one word: zweiundvierzigtausendeinhundertsieben."""
    return f"{compound(n)}s" if n % 100 == 1 else compound(n)


def compound(n: int) -> str:
    """A German number as the beginning of a longer word: einhundertein."""
    for unit, name in ((1000, "tausend"), (100, "hundert")):
        if n >= unit:
            return f"{compound(n // unit)}{name}{compound(n % unit) if n % unit else ''}"
    return DE[n] if n < 20 else f"{f'{DE[n % 10]}und' if n % 10 else ''}{DE_TENS[n // 10]}"


def french(n: int, last: bool = True) -> str:
    """A number from 0 to 999,999 in French, in the spelling before 1990: quarante-deux mille cent sept.

    Args:
        n: the number.
        last: not followed by mille, before which cent and vingt have no plural.
    """
    if n >= 1000:
        thousands = "" if n < 2000 else f"{french(n // 1000, last=False)} "
        return f"{thousands}mille{f' {french(n % 1000)}' if n % 1000 else ''}"
    if n >= 100:
        hundreds, rest = "" if n < 200 else f"{FR[n // 100]} ", n % 100
        return (
            f"{hundreds}cent{'s' if hundreds and last and not rest else ''}{f' {french(rest, last)}' if rest else ''}"
        )
    if n < 20:
        return FR[n]
    tens = n // 10
    unit = n % 10 + (10 if tens in (7, 9) else 0)
    if unit == 0:
        return f"{FR_TENS[tens]}{'s' if tens == 8 and last else ''}"
    return f"{FR_TENS[tens]}{' et ' if unit in (1, 11) and tens < 8 else '-'}{FR[unit]}"


WORDS = {"de": german, "en": english, "fr": french}


@register("data", "number_words")
class NumberWords(PairData):
    """Synthetic pairs: numbers below a million in words, German to English, or data.source= and data.target= with fr.

    Each length from one to six digits is drawn equally often, and each number is used once. A number whose CRC-32 is 0
    modulo 20 is for validation, 1 for testing, whatever the languages.

    Args:
        source: language of the sources.
        target: language of the targets.
        draws: numbers that are drawn, before repetitions are left out.
    """

    licence = "generated"

    def __init__(
        self,
        *,
        source: Language = "de",
        target: Language = "en",
        draws: PositiveInt = 30_000,
        context: PositiveInt = 80,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.source, self.target, self.draws = source, target, draws
        if source == target:
            raise DataError(f"data.source and data.target are both {source}. Choose two of de, en and fr.")

    def read(self) -> PairSplits:
        """Write the numbers of each split, in the order in which they are drawn.

        Raises:
            DataError: too few numbers for three splits.
        """
        rng = random.Random(0)
        splits: PairSplits = [], [], []
        for number in dict.fromkeys(rng.randrange(10 ** rng.randint(1, DIGITS)) for _ in range(self.draws)):
            split = {0: 1, 1: 2}.get(zlib.crc32(str(number).encode()) % 20, 0)
            splits[split].append((WORDS[self.source](number), WORDS[self.target](number)))
        if not all(splits):
            raise DataError(f"data.draws={self.draws}: a split is empty. Set data.draws=1000 or more.")
        return splits
