"""BLEU and chrF against values computed by hand and by sacrebleu's command line."""

import math

import pytest

from zoo.metrics.mt_metrics import bleu, chrf, exact_match


def test_bleu_by_hand():
    """Papineni's formula: clipped precisions of 1- to 4-grams, and the brevity penalty."""
    value, signature = bleu(["a b c d e"], ["a b c d f g"])
    precisions = [4 / 5, 3 / 4, 2 / 3, 1 / 2]
    expected = 100 * math.exp(1 - 6 / 5) * math.prod(precisions) ** 0.25
    assert value == pytest.approx(expected)
    assert "case:mixed" in signature
    assert "tok:13a" in signature
    assert bleu(["a b c d", "e f g h i"], ["a b c d", "e f g h i"])[0] == pytest.approx(100)
    assert bleu(["x y z u v"], ["a b c d e"])[0] == 0


def test_small_letters():
    assert bleu(["a b c d e"], ["A B C D E"])[0] == 0
    value, signature = bleu(["a b c d e"], ["A B C D E"], lowercase=True)
    assert value == pytest.approx(100)
    assert "case:lc" in signature
    assert exact_match(["a", "A", "B"], ["A", "a", "a"], lowercase=True) == pytest.approx(2 / 3)
    assert exact_match(["a", "A"], ["A", "a"]) == 0


def test_chrf_and_exact_matches():
    assert chrf(["abcdefgh"], ["abcdefgh"])[0] == pytest.approx(100)
    assert 0 < chrf(["abcdefgh"], ["abcdefxy"])[0] < 100
    assert exact_match(["a ", "b", "C"], ["a", "c", "c"]) == pytest.approx(1 / 3)
