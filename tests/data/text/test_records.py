"""Records from files of every kind: equal rows, locations in errors, and broken records that are counted."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.core.errors import DataError
from zoo.data.text.instructions import Instructions
from zoo.data.text.records import Broken, read_records, record_files

ROWS = [{"prompt": f'{n}, "é"?\n', "response": f"{n}!"} for n in range(30)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(delimiter: str) -> bytes:
    lines = [("prompt", "response"), *((row["prompt"], row["response"]) for row in ROWS)]
    quoted = [delimiter.join('"' + text.replace('"', '""') + '"' for text in line) for line in lines]
    return "\r\n".join(quoted).encode("utf-8-sig")


def parquet(path: Path, compression: str = "snappy") -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=7, compression=compression)


def zstd(path: Path) -> None:
    import pyarrow as pa

    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(jsonl(ROWS))


def datasets_folder(path: Path) -> None:
    """As the library saves it, with a cache beside it."""
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(str(path), num_shards=2)
    loaded = datasets.load_from_disk(str(path))
    loaded.map(lambda row: {"prompt": "never"}, cache_file_name=str(path / "cache-1.arrow"))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda path: path.write_bytes(jsonl(ROWS)),
    "lines.json": lambda path: path.write_bytes(jsonl(ROWS)),
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.csv": lambda path: path.write_bytes(table(",")),
    "a.TSV": lambda path: path.write_bytes(table("\t")),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS))),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(table(","))),
    "a.jsonl.zst": zstd,
    "a.parquet": parquet,
    "saved": datasets_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_has_the_same_records(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    files = record_files(path)
    assert list(files) == ["train"]
    located = [record for file in files["train"] for record in read_records(file, Broken())]
    assert [row for _, row in located] == ROWS
    assert len({where for where, _ in located}) == len(ROWS)
    data: Any = Instructions(path=str(path), tokenizer="byte", batch_size=2)
    data.setup()
    assert sorted(p for s in ("train", "val", "test") for p in data.pairs(s)) == sorted(
        (row["prompt"], row["response"]) for row in ROWS
    )


def test_locations_are_lines_of_the_file(tmp_path: Path) -> None:
    """A quoted field has line ends; blank lines count."""
    (tmp_path / "a.csv").write_text('prompt,response\n"a\nb",c\n\nd,e\n')
    found = list(read_records(tmp_path / "a.csv", Broken()))
    assert [(where.split(" of ")[0], row["prompt"]) for where, row in found] == [("line 2", "a\nb"), ("line 5", "d")]
    (tmp_path / "a.json").write_text('[{"a": 1}, 2]')
    with pytest.raises(DataError, match=r"element 2 of .*a\.json is not an object"):
        list(read_records(tmp_path / "a.json", Broken()))


def test_splits_of_a_saved_collection_and_of_names(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    parts = {"train": ROWS[:20], "validation": ROWS[20:25], "test": ROWS[25:]}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    saved.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name, rows in parts.items():
        (tmp_path / "hub" / "data" / f"{name}-00000-of-00001.jsonl").write_bytes(jsonl(rows))
    for folder in ("saved", "hub"):
        data: Any = Instructions(path=str(tmp_path / folder), tokenizer="byte", batch_size=2)
        data.setup()
        for split, rows in zip(("train", "val", "test"), parts.values(), strict=True):
            assert data.pairs(split) == [(row["prompt"], row["response"]) for row in rows]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a.jsonl", "b.csv.gz"], {"train": 2}),
        (["train-1.jsonl", "train-2.jsonl", "dev.json"], {"train": 2, "val": 1}),
        (["Validation/x.jsonl", "Training/x.jsonl"], {"train": 1, "val": 1}),
        (["trainer.jsonl", "testament.jsonl", "evaluate.txt"], {"train": 2}),
    ],
)
def test_names_of_splits(names: list[str], wanted: dict[str, int], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert {split: len(files) for split, files in record_files(tmp_path).items()} == wanted


def test_a_test_file_without_a_validation_file_stays_the_test(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(jsonl(ROWS[:25]))
    (tmp_path / "test.jsonl").write_bytes(jsonl(ROWS[25:]))
    data: Any = Instructions(path=str(tmp_path), tokenizer="byte", batch_size=2)
    data.setup()
    assert data.pairs("test") == [(row["prompt"], row["response"]) for row in ROWS[25:]]
    assert data.pairs("val")
    assert sorted(data.pairs("train") + data.pairs("val")) == sorted((r["prompt"], r["response"]) for r in ROWS[:25])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_of_any_size_give_the_same_records(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with line ends of Windows, a last line without one, and quoted ones; positions are those of the file."""
    lines = '{"a": "é€😀", "b": "x\\r"}\r\n\n{"a": "2",\r"b": ""}\n{"a": "z",\r"b": "' + "y" * 99 + '"}'
    files = {
        "a.jsonl": lines,
        "b.json": f"\n\n{lines}",
        "c.csv": 'a,b\r\n"1\n\n2",é\n3,"4\r"',
        "d.csv": "a,b\r1,2\r3,4",
    }
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    names = [name for file in files for name in (file, f"{file}.gz")]
    whole = [list(read_records(tmp_path / name, Broken())) for name in names]
    assert [len(found) for found in whole] == [3, 3, 3, 3, 2, 2, 2, 2]
    assert whole[0][2][1] == {"a": "z", "b": "y" * 99}
    assert whole[6][1][1] == {"a": "3", "b": "4"}
    monkeypatch.setattr("zoo.data.text.records.BLOCK", size)
    assert [list(read_records(tmp_path / name, Broken())) for name in names] == whole
    (tmp_path / "e.jsonl").write_bytes(lines.encode() + b"\n\n\xff")
    with pytest.raises(DataError, match=f"byte 0xff at position {len(lines.encode()) + 2} is not UTF-8"):
        list(read_records(tmp_path / "e.jsonl", Broken()))


MISTAKES = {
    "a.jsonl.gz": (b"no", "not a whole gzip file"),
    "b.jsonl.gz": (gzip.compress(jsonl(ROWS))[:-20], "not a whole gzip file"),
    "a.jsonl.zst": (b"no", "not a whole Zstandard file"),
    "a.parquet": (b"PAR1", "is damaged"),
    "a.arrow": (b"ARROW1", "is damaged"),
    "a.json": (b'[{"prompt": ', "is not a JSON array"),
    "a.csv": (b'prompt,response\n"a,b\n', "line 2 of .* is not a table"),
    "b.csv": (b"prompt,response\na,b,c\n", "line 2 of .* has 3 fields, and the first has 2"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_damaged_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, said = MISTAKES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_records(tmp_path / name, Broken()))


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst", "a.arrow"])
def test_without_pyarrow_the_extra_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(DataError, match=rf"{name}: needs pyarrow, .*generative-zoo\[parquet\]"):
        list(read_records(tmp_path / name, Broken()))


def test_broken_records_are_an_error_or_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = jsonl(ROWS).decode().split("\n")
    lines[3], lines[7] = '{"prompt": "a"', '{"prompt": null, "response": "b"}'
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    settings: dict[str, Any] = {"path": str(tmp_path / "a.jsonl"), "tokenizer": "byte", "batch_size": 2}
    with pytest.raises(DataError, match=r"line 4 of .*a\.jsonl is not JSON"):
        Instructions(**settings).setup()
    data: Any = Instructions(skip_broken=True, **settings)
    data.setup()
    assert sum(len(data.pairs(split)) for split in ("train", "val", "test")) == len(ROWS) - 2
    (told,) = [r.getMessage() for r in caplog.records if "broken" in r.getMessage()]
    assert "left out 2 broken records" in told
    assert "line 4 of" in told
    assert "field 'prompt' is null in line 8 of" in told
    assert data.details["broken"] == "2 records left out"
