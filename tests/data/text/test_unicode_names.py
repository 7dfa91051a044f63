"""Names of characters: each once, in one split, in an uninformative order."""

import unicodedata
import zlib
from itertools import pairwise

import pytest
import torch

import zoo
from zoo.data.loader import make_generator
from zoo.data.text.unicode_names import UnicodeNames, names


def test_every_name_is_there_once_and_in_the_split_of_its_checksum():
    found = names()
    assert len(found) == len(set(found)) > 25_000
    assert {"LATIN SMALL LETTER A", "TEDDY BEAR"} <= set(found)
    assert not {"CJK UNIFIED IDEOGRAPH-4E00", "HANGUL SYLLABLE GAG"} & set(found)
    splits = UnicodeNames().texts
    assert sorted(name for split in splits for name in split) == sorted(found)
    for name in (n for split in splits for n in split[:200]):
        assert unicodedata.lookup(name)
    for number in (0, 1):
        assert splits[number + 1]
        assert all(zlib.crc32(name.encode()) % 50 == number for name in splits[number + 1])


def test_neighbours_are_unrelated():
    codes = [ord(unicodedata.lookup(name)) for name in names()]
    close, sorted_close = (sum(abs(a - b) < 10 for a, b in pairwise(order)) for order in (codes, sorted(codes)))
    assert close / len(codes) < 0.01
    assert sorted_close / len(codes) > 0.9


def test_held_out_windows_hold_every_name():
    data = zoo.create_data("unicode_names", batch_size=8)
    data.setup()
    _, y = data.fetch(data.val, torch.arange(len(data.val[0])), make_generator(0), train=False)
    held = y[y >= 0].tolist()
    assert sorted(held) == sorted(t for _, y in data.val_dataloader() for t in y[y >= 0].tolist())
    assert data.tokenizer.decode([t for t in held if t != data.tokenizer.end]) == "".join(data.texts[1])
    assert held.count(data.tokenizer.end) == len(data.texts[1])
    assert data.spec.tokens.vocab_size == pytest.approx(40, abs=3)  # letters, digits, space, hyphen, and the end
