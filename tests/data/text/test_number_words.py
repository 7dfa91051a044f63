"""Numbers in words: read back by other rules, against printed spellings, and splits that agree in all languages."""

import re
import zlib
from typing import Any

import pytest

import zoo
from zoo.data.text.number_words import DIGITS, WORDS, compound, english, french, german

UNITS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    "de": "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
}
TENS = {
    "en": "ten twenty thirty forty fifty sixty seventy eighty ninety",
    "de": "zehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
    "fr": "dix vingt trente quarante cinquante soixante",
}
SCALES = {"en": ("hundred", "thousand"), "de": ("hundert", "tausend"), "fr": ("cent", "mille")}


def value(text: str, language: str) -> int:
    """The number that words stand for: units add, and hundreds, thousands and French twenties multiply."""
    known = {word: n for n, word in enumerate(UNITS[language].split())}
    known |= {word: 10 * n for n, word in enumerate(TENS[language].split(), 1)}
    hundred, thousand = SCALES[language]
    pattern = "|".join(sorted((*known, hundred, thousand, "und", "et"), key=len, reverse=True))
    assert not re.sub(pattern, "", text).strip(" -s"), text
    total = part = 0
    for word in re.findall(pattern, text):
        if word == thousand:
            total, part = 1000 * max(part, 1), 0
        elif word == hundred:
            part = 100 * max(part, 1)
        elif language == "fr" and word == "vingt" and part % 100 == 4:
            part += 76
        elif word in known:
            part += known[word]
    return total + part


def sample() -> list[int]:
    return [*range(1200), *range(1200, 10**DIGITS, 997), 10**DIGITS - 1]


@pytest.mark.parametrize("language", WORDS)
def test_words_are_read_back_and_are_unique(language: str) -> None:
    texts = [WORDS[language](n) for n in sample()]
    assert [value(text, language) for text in texts] == sample()
    assert len(set(texts)) == len(texts)
    assert all(text == text.strip() and "  " not in text for text in texts)


def test_a_reader_finds_wrong_words() -> None:
    assert value(english(42), "en") != value(english(24), "en")
    assert [value(german(n), "de") for n in (42, 24)] == [42, 24], "units come before tens"
    with pytest.raises(AssertionError):
        value("forty-too", "en")


# Printed spellings: Duden's and the Chicago Manual's rules, and Grevisse's on vingt, cent and et.
@pytest.mark.parametrize(
    ("n", "language", "text"),
    [
        (21, "de", "einundzwanzig"), (101, "de", "einhunderteins"), (1001, "de", "eintausendeins"),
        (101_000, "de", "einhunderteintausend"), (17, "de", "siebzehn"), (76, "de", "sechsundsiebzig"),
        (90, "en", "ninety"), (345, "en", "three hundred forty-five"), (40_014, "en", "forty thousand fourteen"),
        (21, "fr", "vingt et un"), (71, "fr", "soixante et onze"), (80, "fr", "quatre-vingts"),
        (81, "fr", "quatre-vingt-un"), (91, "fr", "quatre-vingt-onze"), (200, "fr", "deux cents"),
        (201, "fr", "deux cent un"), (280, "fr", "deux cent quatre-vingts"), (1000, "fr", "mille"),
        (80_000, "fr", "quatre-vingt mille"), (200_000, "fr", "deux cent mille"), (61, "fr", "soixante et un"),
    ],
)  # fmt: skip
def test_spellings(n: int, language: str, text: str) -> None:
    assert WORDS[language](n) == text
    assert compound(1) == "ein"
    assert french(80, last=False) == "quatre-vingt"


def numbers(part: list[tuple[str, str]], source: str, target: str) -> list[int]:
    found = [value(text, source) for text, _ in part]
    assert found == [value(text, target) for _, text in part]
    return found


def test_the_splits_share_nothing_and_are_those_of_all_languages() -> None:
    made: Any = [
        zoo.create_data("number_words", source=source, target=target, draws=3000, tokenizer="char")
        for source, target in (("de", "en"), ("fr", "de"))
    ]
    one, two = ([numbers(part, data.source, data.target) for part in data.splits] for data in made)
    assert one == two
    assert len(set().union(*one)) == sum(map(len, one)) > 1000
    assert min(map(len, one)) > 50
    for k, remainders in enumerate((range(2, 20), (0,), (1,))):
        assert {zlib.crc32(str(n).encode()) % 20 for n in one[k]} <= set(remainders)


def test_every_pair_fits_the_context() -> None:
    for source, target in (("de", "fr"), ("fr", "en")):
        data: Any = zoo.create_data("number_words", source=source, target=target, tokenizer="char")
        data.setup()
        assert len(data.train[0]) == len(data.splits[0]), "none is left out"
    assert max(len(write(n)) for write in WORDS.values() for n in (777_777, 797_797, 499_499, 999_999)) < data.context


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(zoo.DataError, match="both fr"):
        zoo.create_data("number_words", source="fr", target="fr")
    with pytest.raises(zoo.DataError, match="a split is empty"):
        _ = zoo.create_data("number_words", draws=1).spec
