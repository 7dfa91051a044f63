"""Metrics of text on examples that are counted by hand."""

import math
import sys
import warnings

import pytest

from zoo.metrics.text_diversity import distinct, repetition, share_that_parses


@pytest.mark.parametrize(("n", "expected"), [(1, 4 / 8), (2, 4 / 6), (3, 4 / 4), (5, 1 / 1)])
def test_distinct(n, expected):
    """Words the cat the cat sat | the cat ran: bigrams the-cat three times, cat-the, cat-sat, cat-ran."""
    texts = ["the cat  the\ncat sat", "the cat ran"]
    assert distinct(texts, n) == pytest.approx(expected)


def test_repetition_is_within_a_text():
    loop = "a b a b a b"  # bigrams ab ba ab ba ab: three of five came before
    assert repetition([loop], 2) == pytest.approx(3 / 5)
    assert repetition([loop, "a b c", "a", ""], 2) == pytest.approx((3 / 5 + 0) / 2)  # the last two are too short
    assert repetition(["a b c", "a b c"], 2) == 0  # not across texts
    assert repetition(["x " * 1000]) == pytest.approx(996 / 997)


def test_nothing_to_count():
    assert math.isnan(distinct(["a", ""], 2))
    assert math.isnan(repetition(["a b c"]))
    assert math.isnan(share_that_parses(["", " \n"]))


def test_share_that_parses():
    texts = ["x = 1\n", "def f(:", "", "   \n", "print 'two'", "for i in x: pass"]
    assert share_that_parses(texts) == pytest.approx(2 / 4)


def test_code_is_not_executed():
    assert share_that_parses(["import sys; sys.zoo_was_here = True"]) == 1
    assert not hasattr(sys, "zoo_was_here")


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\0",
        "'\ud800'",  # no UTF-8
        "(" * 100_000,
        "(" * 3000 + ")" * 3000,
        "-" * 100_000 + "1",
        "[" * 150 + "lambda:" * 50_000,
        "".join(" " * i + "if x:\n" for i in range(200)),
        "x = " + "9" * 10_000,
        "a" + ".b" * 100_000 + "(",
        "0777",
        "\t if x:\n        y\n\tz",
    ],
)
def test_what_upsets_parsers_does_not_parse(text):
    assert share_that_parses([text, "1"]) == 0.5


def test_warnings_are_neither_shown_nor_failures():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert share_that_parses(["'\\d'", "1 is 1", "assert (x, 'y')"]) == 1
