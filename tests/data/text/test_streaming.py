"""Data larger than memory: the rows of streaming and of memory are equal, memory is bounded, and a resume continues."""

import gzip
import json
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.core.errors import DataError
from zoo.data.text import overlap as overlap_module
from zoo.data.text.file_prompts import split_by_prompt_hash
from zoo.data.text.instructions import Instructions, Preferences
from zoo.data.text.memmap_corpus import Corpus
from zoo.data.text.overlap import LineOverlap
from zoo.data.text.record_texts import fair_sample, split_of_text

RNG = random.Random(0)
ROWS = [
    {"prompt": f"{i} + {i}?", "response": " ".join(RNG.choices(["yes", "no", "two"], k=1 + i % 9))} for i in range(300)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def made(kind: type = Instructions, **settings: Any) -> Any:
    data = kind(**{"tokenizer": "byte", "batch_size": 8, "context": 256, **settings})
    data.setup()
    return data


def equal(one: Any, two: Any) -> None:
    for name in ("train", "val", "test"):
        for a, b in zip(getattr(one, name), getattr(two, name), strict=True):
            assert torch.equal(a, b), name
        assert one.pairs(name) == two.pairs(name)
        assert list(one.iterate_texts(name)) == list(two.iterate_texts(name))
    assert one.details["rows"] == two.details["rows"].removesuffix(", mapped from files")


def test_streamed_rows_are_those_of_memory(tmp_path: Path) -> None:
    """Of a compressed file, Parquet, a folder of splits, and chats; bit for bit, also from the cache."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)))
    write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.jsonl").write_bytes(lines(ROWS[:200]))
    (tmp_path / "c" / "dev.jsonl").write_bytes(lines(ROWS[200:]))
    turns = [[{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}] for r in ROWS]
    chats = [{"messages": turn * 2} for turn in turns]
    (tmp_path / "d.jsonl").write_bytes(lines(chats))
    for name in ("a.jsonl.gz", "b.parquet", "c", "d.jsonl"):
        path = str(tmp_path / name)
        memory = made(path=path)
        for _ in range(2):
            equal(memory, made(path=path, streaming=True))
        with pytest.raises(AssertionError):
            equal(memory, made(path=path, streaming=True, context=250, truncate=True))  # the control: another line
    bpe = [made(path=str(tmp_path / "a.jsonl.gz"), tokenizer="char", streaming=on) for on in (False, True)]
    assert bpe[0].tokenizer.vocab_size == bpe[1].tokenizer.vocab_size


def test_streamed_preferences_and_labels(tmp_path: Path) -> None:
    pairs = [{"prompt": r["prompt"], "chosen": r["response"], "rejected": "x" * (i % 5)} for i, r in enumerate(ROWS)]
    labels = [{"prompt": r["prompt"], "completion": r["response"], "label": i % 3 > 0} for i, r in enumerate(ROWS)]
    for name, rows in (("p.jsonl", pairs), ("l.jsonl", labels)):
        (tmp_path / name).write_bytes(lines(rows))
        both = [made(Preferences, path=str(tmp_path / name), streaming=on) for on in (False, True)]
        equal(*both)


def test_a_resume_continues_with_the_same_batches(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    whole = list(islice(iter(made(path=str(tmp_path / "a.jsonl"), streaming=True).train_dataloader()), 30))
    again = made(path=str(tmp_path / "a.jsonl"), streaming=True).train_dataloader()
    again.start_batch = 11
    for one, two in zip(whole[11:], again, strict=False):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.y, two.y)
    assert not torch.equal(whole[0].x, whole[11].x)


def test_mistakes_of_streamed_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = lines(ROWS).split(b"\n")
    broken[7] = b"{"
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(broken))
    path = str(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"line 8 of .* is not JSON"):
        made(path=path, streaming=True)
    data = made(path=path, streaming=True, skip_broken=True)
    assert data.details["broken"] == "1 records left out"
    with pytest.raises(DataError, match=r"data\.packing=true: not together with data\.streaming"):
        made(path=path, streaming=True, packing=True)
    with pytest.raises(DataError, match=r"data\.context=4: line \d+ of .* has \d+ tokens"):
        made(path=path, streaming=True, skip_broken=True, context=4)
    (tmp_path / "one.jsonl").write_bytes(lines(ROWS[:1]))
    with pytest.raises(DataError, match="no validation rows"):
        made(path=str(tmp_path / "one.jsonl"), streaming=True)


def test_splits_by_hash_agree() -> None:
    train, val, test = split_by_prompt_hash([(row["prompt"], "") for row in ROWS])
    for number, rows in enumerate((train, val, test)):
        assert {split_of_text(prompt) for prompt, _ in rows} == {number}


def test_a_corpus_of_records_equals_its_texts(tmp_path: Path) -> None:
    """Each text is in one split once, whatever the kind of file; plain files beside them are split as before."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    texts = [f"text {i}\nof two lines" for i in range(400)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines([{"text": text} for text in texts[:200]])))
    write_table(pa.Table.from_pylist([{"text": text} for text in texts[200:]]), tmp_path / "b.parquet")
    data = Corpus(path=str(tmp_path), glob="*.*", tokenizer="byte", context=16, batch_size=4)
    data.setup()
    for number, name in enumerate(("train", "val", "test")):
        stream = getattr(data, name)[1].tolist()
        found = bytes(data.tokenizer.pieces[t][0] if data.tokenizer.pieces[t] else 0 for t in stream).split(b"\0")
        assert [part.decode() for part in found if part] == [t for t in texts if split_of_text(t) == number]
        assert list(data.iterate_texts(name)) == [t for t in texts if split_of_text(t) == number]
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress("\n".join(f"line {i}" for i in range(300)).encode()))
    with pytest.raises(DataError, match=r"one text per line\. Set data\.lines=true"):
        Corpus(path=str(tmp_path / "t.txt.gz"), tokenizer="byte", context=16).setup()
    both = Corpus(path=str(tmp_path / "t.txt.gz"), tokenizer="byte", context=16, lines=True)
    both.setup()
    assert sorted(t for name in ("train", "val", "test") for t in both.iterate_texts(name)) == sorted(
        f"line {i}" for i in range(300)
    )
    with pytest.raises(DataError, match=r"data\.field=body: no text of that name in line 1 of"):
        Corpus(path=str(tmp_path / "a.jsonl.gz"), field="body", tokenizer="byte", context=16).setup()


def test_a_sample_of_texts_depends_on_them_alone() -> None:
    texts = [f"{i:04d}" for i in range(1000)]
    chosen = fair_sample(texts, 400)
    assert len(chosen) == 100
    assert chosen == fair_sample(reversed(texts), 400)
    assert fair_sample(texts, 10**6) == sorted(fair_sample(texts, 10**6), key=fair_sample(texts, 10**6).index)
    assert set(fair_sample(texts, 10**6)) == set(texts)


def test_probes_of_held_out_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [f"a line of some length, number {i}" for i in range(100)]
    monkeypatch.setattr(overlap_module, "PROBES", 10)
    found = LineOverlap(held * 2)
    assert len(found.probes) == 10
    assert found.probes == LineOverlap(reversed(held)).probes
    found.search("\n".join(held))
    assert found.found == found.probes


MEASURE = """
import sys, tracemalloc
from zoo.data.text import file_prompts, memmap_corpus, record_texts, records, spans
from zoo.data.text.instructions import Instructions
from zoo.data.text.memmap_corpus import Corpus
for module in (records, spans, record_texts):
    module.BLOCK = 1 << 16
file_prompts.FIT_SIZE = memmap_corpus.FIT_SIZE = 1 << 16
file_prompts.HELD, memmap_corpus.FIT_BLOCKS = 20, 1
common = dict(tokenizer="byte", context=256, batch_size=4)
first, small, large = (dict(path=path, **common) for path in sys.argv[1:])
Instructions(**first).setup()  # imports
tracemalloc.start()
for make in (
    lambda: Instructions(streaming=True, **small), lambda: Instructions(streaming=True, **large),
    lambda: Corpus(**small), lambda: Corpus(**large), lambda: Instructions(**large),
):
    data, begin = make(), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    data.setup()
    next(iter(data.train_dataloader()))
    print(tracemalloc.get_traced_memory()[1] - begin)
    del data
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Eight times the rows need as much memory when streamed, and several times as much when they are in memory."""
    paths = []
    for n in (50, 300, 2400):
        rows = [{"prompt": f"question {i}", "response": "word " * 40, "text": f"t{i} " * 60} for i in range(n)]
        paths.append(tmp_path / f"{n}.jsonl.gz")
        paths[-1].write_bytes(gzip.compress(lines(rows), 1))
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    small, large, small_corpus, large_corpus, memory = map(int, done.stdout.split())
    assert large < small + 2**19, done.stdout
    assert large_corpus < small_corpus + 2**19, done.stdout
    assert memory > large + 2**19, f"the control: rows in memory {done.stdout}"
