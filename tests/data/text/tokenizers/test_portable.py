"""A byte-pair tokenizer in the file format of the `tokenizers` library is the same tokenizer, for every character."""

import sys
import unicodedata

import pytest
from tokenizers import Tokenizer as Backend

from tests.contracts.specs import slow
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.pretrained import Pretrained, as_pretrained

TEXT = "Ab ab1 12 a\u00b2 \u00bd b\u0301c _x__ a\n    b, \u03a3\u03b1\u03a3 \u0130I\n"
USED = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000))  # planes 0 to 3 and 14
REST = (range(0x40000, 0xE0000, 64), range(0xF0000, sys.maxunicode + 1, 64))  # one kind each: not assigned, private
EVERYTHING = [chr(c) for part in (*USED, *REST) for c in part]
BULK = ("CJK UNIFIED", "HANGUL SYLLABLE", "TANGUT", "CJK COMPATIBILITY")  # thousands of letters of one kind
OTHERS = [c for c in EVERYTHING if (name := unicodedata.name(c, "")) and not name.startswith(BULK)]


@pytest.fixture(params=[False, True], ids=["as_is", "lowercase"])
def both(request, tmp_path):
    """A tokenizer with merges across all kinds of characters, and the file that is written of it."""
    own = BPE(vocab_size=500, min_frequency=1, lowercase=request.param).fit([TEXT * 3])
    text, _ = as_pretrained(own)
    (tmp_path / "tokenizer.json").write_text(text)
    return own, Backend.from_file(str(tmp_path / "tokenizer.json"))


def pieces(file, text):
    """Pieces of the written file, across which it does not merge."""
    text = file.normalizer.normalize_str(text) if file.normalizer else text
    spans = [span for _, span in file.pre_tokenizer.pre_tokenize_str(text)]
    return [text[begin:end] for begin, end in spans]


def test_every_character_in_a_word(both):
    own, file = both
    for start in range(0, len(EVERYTHING), 2**16):
        text = "".join(f"a{c}1" for c in EVERYTHING[start : start + 2**16])
        assert pieces(file, text) == own.pieces_of(text)


@pytest.mark.parametrize("part", [4, *slow(1)])
def test_every_kind_of_character_in_every_context(both, part):
    """Each fourth character, and each one."""
    own, file = both
    text = "".join(f"a{c}b {c} 1{c}2!{c}\n{c}_{c}{c}" for c in OTHERS[::part])
    assert pieces(file, text) == own.pieces_of(text)
    assert file.encode(text, add_special_tokens=False).ids == own.encode(text)


def test_the_file_is_read_as_the_same_tokenizer(both, tmp_path):
    own, _ = both
    read = Pretrained(path=str(tmp_path))
    for text in (TEXT, TEXT.upper(), "", "\ud800 ab"):
        assert read.encode(text) == own.encode(text)
        assert b"".join(read.pieces[i] for i in read.encode(text)) == b"".join(own.pieces[i] for i in own.encode(text))
