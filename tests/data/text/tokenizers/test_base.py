"""Round trips of any text through the tokenizers."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.bpe import BPE, byte_alphabet
from zoo.data.text.tokenizers.byte import Byte
from zoo.data.text.tokenizers.char import Char
from zoo.data.text.tokenizers.word import Word

TEXTS = [
    "def f(x):\n    return x + 1\n\n\nclass A:\n    pass\n" * 20,
    "Zwölf große Boxkämpfer, €5 und 😀.\n" * 20,
]
LOSSLESS = {
    "byte": Byte(),
    "word": Word(vocab_size=300).fit(TEXTS),
    "bpe": BPE(min_frequency=1, vocab_size=320).fit(TEXTS),
}
ALL = {**LOSSLESS, "char": Char().fit(TEXTS)}


@pytest.mark.parametrize("name", LOSSLESS)
@given(text=st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back(name, text):
    tokenizer = LOSSLESS[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.end for i in ids)


@pytest.mark.parametrize("name", ALL)
def test_training_text_comes_back(name):
    for text in [*TEXTS, ""]:
        assert ALL[name].decode(ALL[name].encode(text)) == text


@given(text=st.text())
@settings(max_examples=100, deadline=None)
def test_unknown_characters_become_one_sign_each(text):
    tokenizer = ALL["char"]
    known = set("".join(TEXTS))
    want = "".join(c if c in known else "\N{REPLACEMENT CHARACTER}" for c in text)
    assert tokenizer.decode(tokenizer.encode(text)) == want
    assert len(tokenizer.encode(text)) == len(text)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\r\n\t \r", "<|endoftext|>", "x" * 5000, "e\u0301"])
def test_strange_texts_are_accepted(name, text):
    tokenizer = ALL[name]
    ids = tokenizer.encode(text)
    assert tokenizer.end not in ids
    if name in LOSSLESS:
        assert tokenizer.decode(ids) == text.replace("\ud800", "?")


@pytest.mark.parametrize("name", ALL)
def test_a_string_holds_the_whole_tokenizer(name):
    again = loads(dumps(ALL[name]))
    for text in [*TEXTS, "new words: 你好 <|endoftext|>"]:
        assert again.encode(text) == ALL[name].encode(text)
    assert again.pieces == ALL[name].pieces
    assert (again.end, again.vocab_size, again.unknown) == (
        ALL[name].end,
        ALL[name].vocab_size,
        ALL[name].unknown,
    )
    assert dumps(again) == dumps(ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_decoding_is_concatenation_and_the_end_is_the_last_and_empty(name):
    tokenizer = ALL[name]
    assert tokenizer.end == tokenizer.vocab_size - 1
    assert tokenizer.pieces[tokenizer.end] == b""
    ids = tokenizer.encode(TEXTS[1])
    assert b"".join(tokenizer.pieces[i] for i in ids) == TEXTS[1].encode()
    assert tokenizer.decode([tokenizer.end, *ids, tokenizer.end]) == TEXTS[1]


@pytest.mark.parametrize("name", ALL)
def test_encoding_many_is_encoding_each(name):
    many = ALL[name].encode_all([*TEXTS, ""])
    assert [t.tolist() for t in many] == [ALL[name].encode(text) for text in [*TEXTS, ""]]
    assert all(t.dtype == torch.int32 for t in many)


@pytest.mark.parametrize("kind", [Word, BPE])
def test_training_is_deterministic_and_keeps_to_the_size(kind):
    a, b = kind(vocab_size=300).fit(TEXTS), kind(vocab_size=300).fit(TEXTS)
    assert dumps(a) == dumps(b)
    assert a.vocab_size <= 300
    assert kind(vocab_size=10).fit(TEXTS).vocab_size == 257  # never fewer than the bytes and the end


def test_merges_equal_a_slow_reference():
    texts = ["low lower lowest newer wider new low low\n    low newest"]
    tokenizer = BPE(min_frequency=1, vocab_size=275).fit(texts)
    words = [[bytes([b]) for b in piece.encode()] for piece in BPE.PIECE.findall(texts[0])]
    for step in range(275 - 257):
        counts = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        merged = tokenizer.pieces[256 + step]
        most = max(counts.values())
        assert merged in {a + b for (a, b), n in counts.items() if n == most}  # ties may go either way
        for k, word in enumerate(words):
            new, i = [], 0
            while i < len(word):
                pair = b"".join(word[i : i + 2])
                joined = i + 1 < len(word) and pair == merged and counts.get((word[i], word[i + 1])) == most
                new.append(pair if joined else word[i])
                i += 1 + joined
            words[k] = new
    assert [tokenizer.pieces[i] for i in tokenizer.encode(texts[0])] == [piece for word in words for piece in word]


def test_bpe_compresses_and_keeps_indentation_apart():
    tokenizer = LOSSLESS["bpe"]
    ids = tokenizer.encode(TEXTS[0])
    assert len(ids) < 0.6 * len(TEXTS[0])
    assert b"\n    " in [tokenizer.pieces[i] for i in ids]


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_pieces_cover_the_text(text):
    assert "".join(BPE.PIECE.findall(text)) == text


def test_alphabet_is_that_of_the_library():
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(byte_alphabet()) == set(ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_settings_are_checked():
    with pytest.raises(ZooError, match="vocab_size=0 is out of range"):
        registry.build("tokenizer", {"name": "bpe", "vocab_size": 0})
    with pytest.raises(ZooError, match="did you mean 'bpe'"):
        registry.build("tokenizer", "bp")
    assert registry.names("tokenizer") == [
        "bpe",
        "byte",
        "char",
        "event",
        "note",
        "pretrained",
        "smiles",
        "word",
        "word_level",
    ]
    with pytest.raises(ZooError, match="unknown tokenizer"):
        loads('{"name": "os.system", "state": "ls"}')


def test_a_pair_becomes_a_token_where_it_is_frequent_enough():
    texts = ["ab " * 120 + "cd " * 80]
    usual, frequent = BPE().fit(texts).pieces, BPE(min_frequency=50).fit(texts).pieces
    assert b"ab" in usual
    assert b"cd" not in usual
    assert b"cd" in frequent
