"""Synthetic sums: right and wrong answers, and splits that agree in all stages."""

import re
from typing import Any

import pytest

import zoo
from zoo.models.finetuning.rewards import arithmetic

SUM = re.compile(r"(\d+[+-]\d+=)(-?\d+)")


def made(name: str, **settings: Any) -> Any:
    data: Any = zoo.create_data(name, max_operand=19, **settings)
    data.setup()
    return data


def test_a_share_of_the_corpus_is_wrong() -> None:
    data = made("arithmetic", error_rate=0.3, repeats=3)
    assert all(SUM.fullmatch(text) for split in data.texts for text in split)
    pairs = [SUM.fullmatch(text).groups() for split in data.texts for text in split]
    right = sum(arithmetic(question, answer, "") for question, answer in pairs) / len(pairs)
    assert len(pairs) == 3 * 2 * 20 * 20
    assert right == pytest.approx(0.7, abs=0.04)
    assert made("arithmetic", error_rate=0.0).texts[0] != data.texts[0]
    assert made("arithmetic", error_rate=0.3, repeats=3).texts == data.texts, "the same in every run"


def test_demonstrations_are_right_and_preferences_right_and_wrong() -> None:
    shown = made("arithmetic_instructions")._rows
    compared = made("arithmetic_preferences")._rows
    for one, two in zip(shown, compared, strict=True):
        assert [row[:2] for row in one] == [row[:2] for row in two]
        assert all(arithmetic(*row, "") == 1 for row in one)
        assert all(arithmetic(row[0], row[2], "") == 0 for row in two)
    assert len(made("arithmetic_instructions", examples=50, batch_size=9).train[0]) == 50


def test_the_three_data_sets_share_their_splits() -> None:
    corpus = [{SUM.fullmatch(text)[1] for text in split} for split in made("arithmetic").texts]
    assert sum(map(len, corpus)) == 2 * 20 * 20
    for name in ("arithmetic_instructions", "arithmetic_preferences"):
        assert [{row[0] for row in split} for split in made(name)._rows] == corpus
    assert len(set().union(*corpus)) == sum(map(len, corpus)), "nothing is in two splits"
    assert min(map(len, corpus)) > 20
