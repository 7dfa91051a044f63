"""Windows that cover a text, fixed splits, and files that are not text."""

import os
from itertools import chain
from pathlib import Path

import pytest
import torch

from zoo.config.compose import compose, to_plain
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.data.loader import fixed_order, make_generator
from zoo.data.text.files import cut, decode_file
from zoo.data.text.plain import Text
from zoo.data.text.shakespeare import Shakespeare
from zoo.data.text.tokenizers.base import loads

LINES = "".join(f"line {i}: the quick brown fox\n" for i in range(200))


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text(LINES)
    (tmp_path / "sub" / "b.txt").write_text("second file, é€😀\n" * 30, encoding="utf-8")
    (tmp_path / "c.md").write_text("not this one " * 10)
    return tmp_path


def made(root, **settings):
    data = Text(path=str(root), **{"tokenizer": "byte", "context": 32, "batch_size": 4, **settings})
    data.setup()
    return data


def test_spec_and_batches(corpus):
    data = made(corpus)
    assert isinstance(data.spec.x, Tokens)
    assert data.spec.shape == (32,)
    assert data.spec.tokens.vocab_size == 257
    assert data.spec.name == "text"
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == y.shape == (4, 32)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert loads(data.spec.tokens.tokenizer).decode(x[0].tolist()) in LINES + "second file, é€😀\n" * 30


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("context", [7, 32, 1000])
def test_held_out_windows_score_every_token_exactly_once(corpus, split, context):
    data = made(corpus, context=context)
    end = data.tokenizer.end
    stream = getattr(data, split)[1].tolist()
    texts = data.texts[1 if split == "val" else 2]
    want = [t for text in texts for t in [*data.tokenizer.encode(text), end]]
    assert stream == [end, *want]
    windows = [pair for x, y in getattr(data, f"{split}_dataloader")() for pair in zip(x, y, strict=True)]
    scored, read = [], []
    for place in fixed_order(len(windows)).argsort().tolist():
        row_x, row_y = windows[place]
        scored += row_y[row_y >= 0].tolist()
        read += row_x[row_y >= 0].tolist()
        assert ((row_y >= 0) | (row_y == -100)).all()
    assert scored == want
    assert read == stream[:-1]


def test_training_windows_lie_in_their_stretch_and_reach_every_token(corpus):
    data = made(corpus, context=32)
    starts, stream = data.train
    n = len(starts)
    assert n == (len(stream) - 1) // 32
    probe = torch.arange(len(stream), dtype=torch.int32)  # each token is its position
    seen = torch.zeros(len(stream), dtype=torch.long)
    for epoch in range(60):
        x, y = data.fetch((starts, probe), torch.arange(n), make_generator(epoch), train=True)
        begin = x[:, 0]
        assert ((begin >= starts) & (begin < starts + 32)).all()
        assert torch.equal(x, begin[:, None] + torch.arange(32))
        assert torch.equal(y, x + 1)
        seen += torch.bincount(y.flatten(), minlength=len(stream))
    middle = seen[64:-64].float()
    assert (seen[1:] > 0).all()
    assert middle.mean() == pytest.approx(60, rel=0.02)  # once an epoch
    assert middle.min() > 30
    assert middle.max() < 90


def test_training_order_depends_on_seed_alone(corpus):
    first = [x for x, _ in made(corpus).train_dataloader()]
    again = [x for x, _ in made(corpus).train_dataloader()]
    other = [x for x, _ in made(corpus, seed=1).train_dataloader()]
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_splits_of_own_text(corpus):
    data = made(corpus)
    train, val, test = ("".join(texts).encode() for texts in data.texts)
    whole = (LINES + "second file, é€😀\n" * 30).encode()
    assert train + val + test == whole
    assert train.endswith(b"\n")
    assert val.endswith(b"\n")
    assert len(train) == pytest.approx(0.9 * len(whole), abs=32)  # a line
    assert len(val) == pytest.approx(0.05 * len(whole), abs=32)


def test_glob_and_single_files(corpus):
    assert "".join(chain(*made(corpus, glob="*.md", context=2, batch_size=1).texts)) == "not this one " * 10
    assert "".join(chain(*made(corpus / "a.txt").texts)) == LINES


def test_cut_keeps_everything():
    assert cut("abcdefghij", 0.5) == ("abcde", "fghij")


def test_tokenizers_see_the_training_text_only(tmp_path):
    (tmp_path / "a.txt").write_text("ab" * 450 + "cd" * 50)
    data = made(tmp_path, tokenizer="char", context=8)
    assert data.spec.tokens.vocab_size == 4  # a, b, unknown, end
    assert (data.val[1] == data.tokenizer.unknown).sum() == 50


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "nothing", "nothing: no such file or folder"),
        (lambda p: p / "empty", r"data.glob=\*\.txt: no matching file"),
        (lambda p: p / "nul.txt", r"nul\.txt is not a text file \(a zero byte at position 3\)"),
        (
            lambda p: p / "latin.txt",
            r"latin\.txt is not a text file \(byte 0xe9 at position 2 is not UTF-8\)",
        ),
        (lambda p: p / "short.txt", r"data.context=32: the training text of text has only \d+ tokens"),
    ],
)
def test_errors_name_the_file(tmp_path, make, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nul.txt").write_bytes(b"abc\0def")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".replace("f", "").encode("latin-1"))
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(ZooError, match=sentence):
        made(make(tmp_path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_unreadable_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(ZooError, match="cannot be read"):
        decode_file(path)


def test_unreadable_is_named(tmp_path):
    with pytest.raises(ZooError, match="cannot be read"):
        decode_file(tmp_path)  # a folder


def test_byte_order_mark_and_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert decode_file(tmp_path / "a.txt") == "one\ntwo\n"


def test_batch_larger_than_the_text(corpus):
    with pytest.raises(ZooError, match="larger than the training set of text"):
        made(corpus, batch_size=10_000)


def test_shakespeare_is_missing(tmp_path):
    with pytest.raises(ZooError, match=r"tinyshakespeare.input\.txt\. Save https"):
        Shakespeare(path=str(tmp_path)).setup()


@pytest.mark.skipif("ZOO_DATA" not in os.environ, reason="ZOO_DATA is not set: no real Shakespeare here")
def test_shakespeare_split():
    data = Shakespeare()
    if not (Path(os.environ["ZOO_DATA"]) / "tinyshakespeare").is_dir():
        pytest.skip("no tinyshakespeare in ZOO_DATA")
    data.setup()
    assert data.spec.tokens.vocab_size == 65 + 2
    assert [len(part[0]) for part in data.texts[:2]] == [1003855, 111539]


# -- the text that every installation has -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stdlib", "pydoc", "text", "corpus", "shakespeare"])
def test_recipes_compose(name):
    data = to_plain(compose("model=gpt", f"data={name}", "data/tokenizer=word", "data.tokenizer.vocab_size=999").data)
    assert data["name"] == name
    assert data["tokenizer"] == {"name": "word", "vocab_size": 999}


def test_gpt_has_default_data_that_can_be_overridden():
    assert compose("model=gpt").data.name == "stdlib"
    assert compose("model=gpt", "data=digits").data.name == "digits"
    assert compose("model=gpt", "data=mnist").data.name == "mnist"
    assert compose("model=image_gpt").data.name == "digits"
    assert compose("model=image_gpt", "data=mnist").data.name == "mnist"
    assert compose("model=gpt", "data/tokenizer=bpe", "data.tokenizer.vocab_size=2048").data.tokenizer.name == "bpe"
