"""Memory-mapped corpus: the same text as in memory, tokenized once, and never read whole."""

import json
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import torch

import zoo
from zoo.core.errors import ZooError
from zoo.data.text import memmap_corpus
from zoo.data.text import spans as spans_module
from zoo.data.text.memmap_corpus import SPLITS, Corpus
from zoo.data.text.plain import Text
from zoo.data.text.spans import Span, blocks, spans

LINES = "".join(f"line {i}: the quick brown fox, é€😀\n" for i in range(2000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text(LINES, encoding="utf-8")
    (root / "sub" / "b.txt").write_text("second file\n" * 500)
    (root / "c.txt").write_text("")
    return root


def made(root: Path, cache: Path, **settings) -> Corpus:
    data = Corpus(path=str(root), cache=str(cache), **{"tokenizer": "byte", "context": 32, "batch_size": 4, **settings})
    data.setup()
    return data


def text_of(data: Corpus, name: str) -> list[str]:
    ids, texts, end = getattr(data, name)[1].tolist(), [], data.tokenizer.end
    assert ids[0] == end == ids[-1]
    for i in ids[1:]:
        texts = texts or [[]]
        texts[-1].append(i)
        if i == end:
            texts.append([])
    return [data.tokenizer.decode(t) for t in texts[:-1]]


@pytest.mark.parametrize("block", [64, 1000, 1 << 22])
def test_every_byte_is_in_one_split_once(folder: Path, tmp_path: Path, block: int, monkeypatch) -> None:
    """For all tokenizers; splits end at line ends, and blocks are complete."""
    monkeypatch.setattr(spans_module, "BLOCK", block)
    data = made(folder, tmp_path / "cache")
    found = [text_of(data, name) for name in SPLITS]
    files = [p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.txt"))]
    lines = [line for part in found for text in part for line in text.splitlines()]
    assert Counter(lines) == Counter("".join(files).splitlines())
    assert all(text.endswith("\n") for part in found for text in part)
    total = sum(len(f.encode()) for f in files)
    for part, share in zip(found, (0.9, 0.05, 0.05), strict=True):
        assert abs(sum(len(t.encode()) for t in part) - share * total) <= 2 * 64


@pytest.mark.parametrize("tokenizer", ["byte", "char", "word", "bpe"])
def test_it_equals_text_in_memory(folder: Path, tmp_path: Path, tokenizer: str) -> None:
    """The same splits and training windows, bit for bit."""
    both = [
        made(folder, tmp_path / "cache", tokenizer=tokenizer),
        Text(path=str(folder), tokenizer=tokenizer, context=32, batch_size=4),
    ]
    both[1].setup()
    for name in SPLITS:
        assert torch.equal(*(getattr(data, name)[1].long() for data in both))
    for one, two in zip(*(iter(data.train_dataloader()) for data in both), strict=True):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.y, two.y)


def test_json_lines(tmp_path: Path) -> None:
    texts = [f"document {i}\nof two lines" for i in range(100)]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"body": t, "id": 0}) for t in texts) + "\n\n")
    data = made(tmp_path / "d.jsonl", tmp_path / "cache", field="body")
    assert [t for name in SPLITS for t in text_of(data, name)] == texts
    with pytest.raises(ZooError, match=r"data.field=text: no text of that name in .*\. Set data.field=NAME"):
        made(tmp_path / "d.jsonl", tmp_path / "cache")


def test_it_is_tokenized_once(folder: Path, tmp_path: Path, monkeypatch) -> None:
    first = made(folder, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "write", lambda *_: pytest.fail("again"))
        second = made(folder, tmp_path / "cache")
    assert torch.equal(first.train[1].long(), second.train[1].long())
    (folder / "a.txt").write_text(LINES + "more\n", encoding="utf-8")
    assert sum(len(getattr(made(folder, tmp_path / "cache"), n)[1]) for n in SPLITS) == 5 + sum(
        len(getattr(first, n)[1]) for n in SPLITS
    )
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_tokens_take_two_bytes_or_four(folder: Path, tmp_path: Path, monkeypatch) -> None:
    small = made(folder, tmp_path / "cache")
    assert small.train[1].dtype == torch.uint16
    monkeypatch.setattr(Corpus, "wide", True)
    wide = made(folder, tmp_path / "wide")
    assert wide.train[1].dtype == torch.int32
    assert torch.equal(small.train[1].long(), wide.train[1].long())


def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memmap_corpus, "fsync", full)
    with pytest.raises(ZooError, match=r"data.cache=.*No space left on device\)\. Give a folder with free space"):
        made(folder, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half-written is left"


def test_files_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n" * 1000 + b"\xff\xfe not\n")
    with pytest.raises(ZooError, match="byte 0xff at position 5000 is not UTF-8"):
        made(tmp_path / "a.txt", tmp_path / "cache")
    with pytest.raises(ZooError, match="no such file or folder"):
        made(tmp_path / "b.txt", tmp_path / "cache")


def test_a_file_that_cannot_be_read(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """The message names the file, not the cache."""
    own = Path.open

    def refused(self: Path, *given):
        if self.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return own(self, *given)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ZooError, match=r"b.txt cannot be read \(Permission denied\)\. Check its permissions"):
        made(folder, tmp_path / "cache")


def test_a_line_without_end_is_cut_between_characters(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(spans_module, "BLOCK", 100)
    text = "é€😀x" * 300
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (part,) = [spans([tmp_path / "a.txt"])[0]]
    data = made(tmp_path / "a.txt", tmp_path / "cache")
    assert "".join(t for name in SPLITS for t in text_of(data, name)) == text
    assert max(block.end - block.begin for span in part for block in blocks(span)) <= 200


def test_it_is_never_in_memory(tmp_path: Path) -> None:
    """40 MB of text; tokenizing and batches take only a few blocks of memory."""
    path = tmp_path / "big.txt"
    with path.open("w") as file:
        for i in range(8):
            file.write((f"{i} the quick brown fox jumps over the lazy dog\n" * 110_000)[: 5 << 20])
    size = path.stat().st_size
    data = Corpus(path=str(path), cache=str(tmp_path / "cache"), tokenizer="byte", context=32, batch_size=4)
    tracemalloc.start()
    data.token_folder()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < size
    before = resident()
    data.setup()
    next(iter(data.train_dataloader()))
    assert resident() - before < size / 2, "the numbers are 80 MB"


def resident() -> int:
    """Return the bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_it_trains_and_is_sampled(folder: Path, tmp_path: Path) -> None:
    data = made(folder, tmp_path / "cache", tokenizer={"name": "bpe", "vocab_size": 300, "min_frequency": 1})
    assert data.spec.tokens.vocab_size <= 300
    model = zoo.create_model("gpt", data=data.spec, backbone={"d_model": 16, "n_layers": 1, "n_heads": 1})
    loss = model.loss(next(iter(data.train_dataloader())))["loss"]
    assert loss.isfinite()
    assert len(data.sample_texts("val", 3, 8)) == 3


def test_spans_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("")
    assert spans([path]) == ([], [], [])
    path.write_text("one line")
    assert spans([path]) == ([Span(path, 0, 7)], [Span(path, 7, 8)], [])
