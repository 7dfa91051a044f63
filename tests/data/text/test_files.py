"""Files of users: hidden files, names, encodings, line ends, JSON Lines, splits that cover sorted text, copies."""

import gzip
import json
import logging
import random
import string
import zipfile
from itertools import chain
from pathlib import Path

import pytest

from zoo.core.errors import DataError
from zoo.data.base import DataModule
from zoo.data.text.files import decode_file, files_of, json_object, matches
from zoo.data.text.memmap_corpus import Corpus
from zoo.data.text.plain import Text
from zoo.data.text.spans import spans

LINES = "".join(f"line {i}: the quick brown fox\n" for i in range(200))


def text(path: Path, **settings) -> Text:
    data = Text(path=str(path), **{"tokenizer": "byte", "context": 32, "batch_size": 4, **settings})
    data.setup()
    return data


def corpus(path: Path, **settings) -> Corpus:
    data = Corpus(path=str(path), cache=str(path.parent.parent / "cache"), tokenizer="byte", context=32, batch_size=4,
                  **settings)  # fmt: skip
    data.setup()
    return data


def contents(data: DataModule) -> list[str]:
    """Sorted lines of all splits of any text data."""
    both = chain.from_iterable(getattr(data, name)[1].tolist() for name in ("train", "val", "test"))
    return sorted(filter(None, data.tokenizer.decode(i if i < 256 else 10 for i in both).split("\n")))


HIDDEN = [
    ".ipynb_checkpoints/a-checkpoint.txt", ".venv/lib/python3.12/site-packages/x/top_level.txt", "__MACOSX/a.txt",
    "__MACOSX/._a.txt", "._a.txt", ".hidden.txt", "@eaDir/a.txt", "venv/Lib/site-packages/x/LICENSE.txt", "~$a.txt",
    "node_modules/x/a.txt", "System Volume Information/a.txt", "$RECYCLE.BIN/a.txt",
]  # fmt: skip


@pytest.mark.parametrize("make", [text, corpus])
def test_hidden_and_system_files_are_left_out(tmp_path, make, caplog):
    root = tmp_path / ".cache" / "texts"  # folders above are not looked at
    for name in ["a.txt", *HIDDEN]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(LINES if name == "a.txt" else f"copy {name}\n" + LINES)
    with caplog.at_level(logging.INFO):
        data = make(root)
    assert contents(data) == sorted(LINES.splitlines())
    assert "left out 11 hidden or system files and folders" in caplog.text


def test_names_in_capitals_are_read_and_other_files_counted(tmp_path, caplog):
    for name in ("small.txt", "BOOK.TXT", "sub/Part.Txt", "b.md", "c.md", "README", "old.txt~"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(LINES)
    names = [str(path.relative_to(tmp_path)) for path in files_of(tmp_path, "*.txt")]
    assert names == ["BOOK.TXT", "small.txt", "sub/Part.Txt"]
    (record,) = caplog.records
    assert record.levelname == "WARNING", "the console shows warnings"
    assert "read 3 files; left out 2 .md, 1 .txt~, 1 no suffix: not data.glob=*.txt." in record.getMessage()
    with pytest.raises(DataError, match=r"data.glob=\*.rst: no matching file in folder .* \(3 \.txt, 2 \.md, 1 \.txt~"):
        files_of(tmp_path, "*.rst")


@pytest.mark.parametrize(
    ("path", "glob", "expected"),
    [
        ("a/b.txt", "*.txt", True), ("a/b.txt", "a/*.txt", True), ("c/a/b.txt", "a/*.txt", True),
        ("a/c/b.txt", "a/*.txt", False), ("a/c/b.txt", "a/**/*.txt", True), ("a/b.txt", "a/**/*.txt", True),
        ("b.txt", "**/*.txt", True), ("b.txt", "a/*.txt", False), ("b.md", "*.txt", False), ("b.txt", "*", True),
    ],
)  # fmt: skip
def test_globs_match_as_pathlib_does(path, glob, expected, tmp_path):
    assert matches(path.split("/"), glob.split("/")) is expected
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("x")
    assert (tmp_path / path in list(tmp_path.rglob(glob))) is expected


def test_links_are_followed_once(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.mkdir()
    (root / "a.txt").write_text("a")
    (outside / "b.txt").write_text("b")
    (root / "again.txt").symlink_to(root / "a.txt")  # would put held-out text into training
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "one.txt").symlink_to(outside / "b.txt")
    (root / "dead.txt").symlink_to(outside / "nothing.txt")
    assert files_of(root, "*.txt") == [root / "a.txt", root / "folder" / "b.txt", root / "one.txt"]


@pytest.mark.parametrize(
    ("raw", "remedy"),
    [
        ("text".encode("utf-16"), "UTF-16 text. Convert it to UTF-8: iconv"),
        (b"\xfe\xff" + "text".encode("utf-16-be"), "UTF-16 text"),
        ("text".encode("utf-32"), "UTF-32 text"),
        ("a" * 9 + "é".encode("latin-1").decode("latin-1"), "byte 0xe9 at position 9 is not UTF-8.*iconv -f LATIN1"),
        (gzip.compress(b"text", mtime=0), "compressed by gzip. Unpack it: gunzip"),
        (b"%PDF-1.7", "a PDF. Convert it to text"),
        (b"a\0b", "a zero byte at position 1"),
    ],
)
def test_what_is_not_utf8_is_refused_with_the_remedy(tmp_path, raw, remedy):
    path = tmp_path / "a.txt"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode("latin-1"))
    for make in (text, corpus):
        with pytest.raises(DataError, match=rf"a\.txt is .*{remedy}") as error:
            make(path)
        assert "\n" not in str(error.value)


def test_an_archive_is_not_text(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(DataError, match=r"a ZIP archive .*save it as plain text"):
        decode_file(tmp_path / "a.docx")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems(tmp_path, end):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + LINES.replace("\n", end).encode())
    assert decode_file(tmp_path / "a.txt") == LINES
    assert contents(text(tmp_path / "a.txt", lines=True)) == sorted(LINES.splitlines())
    (tmp_path / "b.txt").write_bytes(b"a\rb\nc")  # part of a line: lines of parallel files stay in step
    assert decode_file(tmp_path / "b.txt") == "a\rb\nc"


@pytest.mark.parametrize("make", [text, corpus])
@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL"])
def test_texts_in_json_lines_are_read(tmp_path, make, name):
    """The keys and escapes of the objects are not trained on."""
    texts = [f"Text {i}: Grüße an alle" for i in range(100)]
    root = tmp_path / "texts"
    root.mkdir()
    (root / name).write_text("\n".join(json.dumps({"text": t, "id": 1}) for t in texts))
    assert contents(make(root / name)) == sorted(texts)
    (root / "c.txt").write_text("")
    assert contents(make(root, glob="*")) == sorted(texts)


@pytest.mark.parametrize("make", [text, corpus])
def test_lines_are_texts(tmp_path, make):
    names = sorted({"".join(random.Random(i).choices(string.ascii_lowercase, k=6)) for i in range(500)})
    (tmp_path / "a.txt").write_text("\n".join(names) + "\n\n")
    data = make(tmp_path / "a.txt", lines=True)
    assert contents(data) == names
    ends = sum(int((getattr(data, name)[1] == data.tokenizer.end).sum()) for name in ("train", "val", "test"))
    assert ends == len(names) + 3


def test_equal_lines_are_in_one_split(tmp_path):
    names = [f"name {i % 60}" for i in range(600)]
    (tmp_path / "a.txt").write_text("\n".join(names))
    splits = [set(part) for part in text(tmp_path / "a.txt", lines=True).texts]
    assert [len(part) for part in splits] == [54, 3, 3]
    assert len(set.union(*splits)) == 60
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"2 different texts, too few to split\. Give at least 3"):
        text(tmp_path / "a.txt", lines=True)


@pytest.mark.parametrize("make", [text, corpus])
def test_a_sorted_text_is_split_over_its_whole_length(tmp_path, make):
    """Held-out text has the initials of the training text, not only the last ones."""
    words = sorted("".join(random.Random(i).choices(string.ascii_lowercase, k=9)) for i in range(40_000))
    (tmp_path / "a.txt").write_text("\n".join(words))
    data = make(tmp_path / "a.txt")
    for name, least in (("train", 26), ("val", 9), ("test", 9)):
        found = data.tokenizer.decode(i if i < 256 else 10 for i in getattr(data, name)[1].tolist()).split("\n")
        assert len({word[0] for word in found if len(word) == 9}) >= least
    sizes = [len(getattr(data, name)[1]) / len("\n".join(words)) for name in ("train", "val", "test")]
    assert sizes == pytest.approx([0.9, 0.05, 0.05], abs=0.005)
    assert contents(data) == words


@pytest.mark.parametrize("make", [text, corpus])
@pytest.mark.parametrize("size", [300, 5_000, 200_000])
def test_one_long_line_is_split_between_characters(tmp_path, make, size):
    line = "".join(random.Random(0).choices("abé€😀", k=size))
    (tmp_path / "a.txt").write_text(line)
    data = make(tmp_path / "a.txt")
    ids = [getattr(data, name)[1].tolist() for name in ("train", "val", "test")]
    decoded = [data.tokenizer.decode(i for i in part if i < 256) for part in ids]
    assert "\ufffd" not in "".join(decoded)
    assert sum(map(len, decoded)) == size
    assert [len(part) / size for part in decoded] == pytest.approx([0.9, 0.05, 0.05], abs=0.03)


def test_a_line_of_json_is_never_cut(tmp_path):
    rows = [json.dumps({"text": "x" * 900}) for _ in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    ends = [span.end for split in spans([tmp_path / "a.jsonl"]) for span in split]
    whole = (tmp_path / "a.jsonl").read_text()
    assert all(whole[end - 1] in "}\n" for end in ends)


@pytest.mark.parametrize("make", [text, corpus])
def test_too_little_text_is_refused_before_training(tmp_path, make):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"has only 1 tokens\. Give more text\.$"):
        make(tmp_path / "a.txt")
    (tmp_path / "a.jsonl").write_text('{"text": "' + "long " * 99 + '"}')
    with pytest.raises(DataError, match=r"the validation text is empty\. Give more text|too few to split"):
        make(tmp_path / "a.jsonl")


@pytest.mark.parametrize("make", [text, corpus])
def test_copies_across_splits_are_counted(tmp_path, make, caplog):
    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text(LINES)
    make(root)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    (root / "b (copy).txt").write_text("another beginning\n" + LINES.replace("\n", "\r\n"))
    make(root)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert record.levelname == "WARNING"
    assert "100% of the lines of at least 20 characters in the validation and test text" in record.getMessage()


def test_halves_of_characters_and_numbers_that_are_not_json(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    assert json_object('{"a": "x\\ud83d", "b": ["\\uDE00"], "c": "\\ud83d\\ude00 \\\\ud83d"}', "line 1", path) == {
        "a": "x\ufffd", "b": ["\ufffd"], "c": "😀 \\ud83d",
    }  # fmt: skip
    json_object('{"a": "x\\ud83d"}', "line 2", path)
    (record,) = caplog.records
    assert "a.jsonl: contains halves of characters" in record.getMessage()
    assert json_object('{"a": NaN, "b": -Infinity}', "line 1", path) == {"a": None, "b": None}
    with pytest.raises(DataError, match="line 3 is not JSON"):
        json_object("[" * 100_000, "line 3", path)
