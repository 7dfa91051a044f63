"""Pairs of texts: file formats, errors, batches of similar length, padding."""

import json
from itertools import chain

import pytest
import torch

import zoo
from zoo.api import create_data
from zoo.core.spaces import ABSENT
from zoo.data.loader import LengthBucketSampler, make_generator
from zoo.data.text.paired import Pairs
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.bpe import BPE

TEXTS = [(f"Quelle {i} " + "ab " * (i % 7), f"target {i} " + "c" * (i % 5)) for i in range(40)]


def write(folder, stem, pairs, form):
    if form == "lines":
        (folder / f"{stem}.de").write_text("".join(f"{a}\n" for a, _ in pairs), encoding="utf-8")
        (folder / f"{stem}.en").write_text("\n".join(b for _, b in pairs), encoding="utf-8")  # no last line break
    elif form == "tsv":
        (folder / f"{stem}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    else:
        rows = [json.dumps({"id": 1, "question": a, "answer": b}) for a, b in pairs]
        (folder / f"{stem}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def made(root, **settings):
    data = Pairs(path=str(root), **{"tokenizer": "byte", "batch_size": 4} | settings)
    data.setup()
    return data


SIDES = {"lines": {"source": "de", "target": "en"}, "tsv": {}, "jsonl": {}}


@pytest.mark.parametrize("form", SIDES)
def test_a_folder_in_every_form(tmp_path, form):
    write(tmp_path, "train", TEXTS, form)
    write(tmp_path, "dev", TEXTS[:3], form)
    data = made(tmp_path, **SIDES[form])
    assert data.pairs("train") == TEXTS
    assert data.pairs("val") == data.pairs("test") == TEXTS[:3]
    write(tmp_path, "test", TEXTS[3:5], form)
    assert made(tmp_path, **SIDES[form]).pairs("test") == TEXTS[3:5]


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_one_file_is_split_by_a_seed_that_the_order_does_not_share(tmp_path, form):
    write(tmp_path, "all", TEXTS, form)
    file = tmp_path / f"all.{form}"
    data = made(file)
    parts = [data.pairs(split) for split in ("train", "val", "test")]
    assert [len(p) for p in parts] == [36, 2, 2]
    assert sorted(pair for part in parts for pair in part) == sorted(TEXTS)
    assert [made(file, seed=5).pairs(s) for s in ("train", "val", "test")] == parts
    assert made(file, split_seed=1).pairs("val") != parts[1]


def test_named_columns_and_fields(tmp_path):
    (tmp_path / "a.tsv").write_text("id\ten\tde\n" + "".join(f"{i}\tx\ty{i}\n" for i in range(5)))
    assert made(tmp_path / "a.tsv", source="de", target="en", batch_size=1).pairs("train")[0][1] == "x"
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"q": "x", "a": "y", "source": "no"}) + "\n" + "".join(f'{{"q":"x","a":"{i}"}}\n' for i in range(4))
    )
    assert made(tmp_path / "a.jsonl", source="q", target="a", batch_size=1).pairs("train")[0][0] == "x"


def test_errors_name_the_problem(tmp_path):
    def told(root, **settings):
        with pytest.raises(zoo.ZooError) as error:
            made(root, **settings)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such file or folder" in told(tmp_path / "none")
    assert "no training pairs" in told(tmp_path)
    assert "Give both" in told(tmp_path, source="de")
    lines = {"source": "de", "target": "en"}
    (tmp_path / "train.de").write_text("a\nb\nc\n")
    assert "train.en is missing" in told(tmp_path, **lines)
    (tmp_path / "train.en").write_text("a\nb\n")
    assert "train.de has 3 lines and train.en has 2" in told(tmp_path, **lines)
    (tmp_path / "b.tsv").write_text("a\tb\nonly\n")
    assert "line 2 of" in told(tmp_path / "b.tsv")
    assert "no column de in the first line of" in told(tmp_path / "b.tsv", **lines)
    (tmp_path / "c.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": "a"}\n')
    assert "line 2 of" in told(tmp_path / "c.jsonl")
    assert "field target is missing in line 2" in told(tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text('{"source": "a", "target": 3}\n')
    assert "field target is not text" in told(tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text('{"x": "a"}\n')
    assert "has the fields x" in told(tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text("[1]\n")
    assert "not a JSON object" in told(tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text("{\n")
    assert "line 1 of" in told(tmp_path / "c.jsonl")
    assert "is not JSON" in told(tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text("")
    assert "is empty" in told(tmp_path / "c.jsonl")
    (tmp_path / "d.txt").write_text("a")
    assert "neither .tsv nor .jsonl" in told(tmp_path / "d.txt")
    (tmp_path / "e.tsv").write_text("a\tb\nc\td\n")
    assert "too few to split" in told(tmp_path / "e.tsv")


def test_a_field_of_any_length_and_quotes_are_text(tmp_path):
    """No limit of 131,072 characters, and no meaning of quotation marks or lone carriage returns."""
    pairs = [(f'"{n} ' + "x" * 200_000, f"a\rb{n}'") for n in range(3)]
    (tmp_path / "a.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), newline="")
    data = Pairs(path=str(tmp_path / "a.tsv"), tokenizer="byte", context=300_000, batch_size=1)
    data.setup()
    assert sorted(chain(*data.splits)) == pairs


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["A.TSV", "a.tsv"])
def test_line_ends_and_capitals(tmp_path, end, name):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + "".join(f"{a}\t{b}{end}" for a, b in TEXTS).encode())
    assert sorted(chain(*made(tmp_path / name).splits)) == sorted(TEXTS)


def test_equal_pairs_are_in_one_split(tmp_path, caplog):
    write(tmp_path, "all", TEXTS * 3, "tsv")
    data = made(tmp_path / "all.tsv")
    parts = [set(data.pairs(split)) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [36, 2, 2]
    assert [len(data.pairs(split)) for split in ("train", "val", "test")] == [108, 6, 6]
    assert not caplog.records


def test_copies_in_a_validation_file_are_counted_and_other_files_named(tmp_path, caplog):
    write(tmp_path, "Train", TEXTS, "tsv")
    write(tmp_path, "dev", [*TEXTS[:2], ("new", "pair")], "jsonl")
    for name in (".train.tsv", "._dev.jsonl", "Thumbs.db", "train2.tsv"):
        (tmp_path / name).write_text("x")
    assert made(tmp_path).pairs("train") == TEXTS
    told = [record.getMessage() for record in caplog.records]
    assert told[0].endswith("left out 1 file: train2.tsv.")
    assert told[1].startswith("data=pairs: 2 of 3 validation pairs are also in the training split")
    assert len(told) == 2


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_long_held_out_pairs_are_named_by_their_line(tmp_path, form):
    write(tmp_path, "all", [*TEXTS[:30], ("x" * 90, "y"), *TEXTS[30:]], form)
    held = (seed for seed in range(99) if 30 in torch.randperm(41, generator=make_generator(seed))[:4])
    with pytest.raises(zoo.ZooError, match=rf"line 31 of .*all\.{form} has a text of 91 tokens"):
        made(tmp_path / f"all.{form}", context=60, split_seed=next(held))


def test_long_pairs_are_left_out_of_training_and_an_error_when_held_out(tmp_path, caplog):
    write(tmp_path, "train", [*TEXTS, ("x" * 90, "y")], "tsv")
    write(tmp_path, "val", TEXTS[:2], "tsv")
    data = made(tmp_path, context=60)
    assert len(data.train[0]) == 40
    assert "1 of 41 training pairs" in caplog.text
    with pytest.raises(zoo.ZooError, match=r"every training pair .* Set data.context=91"):
        made(tmp_path, context=4)
    write(tmp_path, "test", [("a", "b"), ("x", "y" * 80)], "tsv")
    with pytest.raises(zoo.ZooError, match=r"line 2 of .*test.tsv .* Set data.context=81"):
        made(tmp_path, context=60)


def test_batches_hold_the_texts_without_needless_padding(tmp_path):
    write(tmp_path, "all", TEXTS, "tsv")
    data = made(tmp_path / "all.tsv")
    seen = []
    for x, y in data.train_dataloader():
        assert x.dtype == y.dtype == torch.int64
        for side in (x, y):
            length = (side >= 0).sum(1)
            assert side.shape[1] == length.max() <= data.context
            assert (side[torch.arange(len(side)), length - 1] == data.tokenizer.end).all()
            assert side[torch.arange(side.shape[1]) >= length[:, None]].eq(ABSENT).all()
        seen += [tuple(data.tokenizer.decode(t[t >= 0].tolist()) for t in row) for row in zip(x, y, strict=True)]
    assert sorted(seen) == sorted(data.pairs("train"))
    assert [len(x) for x, _ in data.val_dataloader()] == [2]


def test_training_resumes_at_the_next_batch(tmp_path):
    write(tmp_path, "all", TEXTS, "tsv")
    data = made(tmp_path / "all.tsv")
    loader, later = data.train_dataloader(), data.train_dataloader()
    batches = [*loader, *loader]  # two epochs of nine
    later.start_batch = 5
    for (x, y), (a, b) in zip(batches[5:], later, strict=False):
        assert torch.equal(x, a)
        assert torch.equal(y, b)


def test_an_empty_side_is_its_end_alone(tmp_path):
    (tmp_path / "a.tsv").write_text("".join(f"{i}\t\n" for i in range(6)))
    _, y = next(iter(made(tmp_path / "a.tsv").train_dataloader()))
    assert y.tolist() == [[256]] * 4


@pytest.mark.parametrize("world", [1, 2, 3])
def test_buckets_use_every_sample_once_in_batches_of_similar_length(world):
    lengths = torch.randint(1, 60, (3001,), generator=make_generator(0))
    orders = [LengthBucketSampler(lengths, 8, 7, rank, world) for rank in range(world)]
    for epoch in (0, 1):
        parts = [order.epoch(epoch) for order in orders]
        assert {len(p) for p in parts} == {len(orders[0])} == {3001 // (8 * world) * 8}
        together = torch.cat(parts)
        assert len(together.unique()) == len(together)
        assert all(torch.equal(p, o.epoch(epoch)) for p, o in zip(parts, orders, strict=True))
        spread = torch.stack([lengths[p].view(-1, 8).amax(1) - lengths[p].view(-1, 8).amin(1) for p in parts])
        assert spread.float().mean() < 4
        first = torch.stack([lengths[p].view(-1, 8)[:, 0] for p in parts])  # processes work on like lengths
        assert (first.amax(0) - first.amin(0)).float().mean() < 4
    assert not torch.equal(orders[0].epoch(0), orders[0].epoch(1))
    shuffled = lengths[orders[0].epoch(0)].view(-1, 8).float().mean(1)
    assert torch.corrcoef(torch.stack([shuffled, torch.arange(len(shuffled)).float()]))[0, 1].abs() < 0.3


def test_fewer_samples_than_a_batch_for_each_process():
    assert len(LengthBucketSampler(torch.ones(5), 4, 0, 0, 2).epoch(0)) == 0


def test_lowercasing_is_saved():
    texts = ["Ein Mann und EINE Frau und ein Hund"] * 3
    small, large = (BPE(min_frequency=1, vocab_size=270, lowercase=low).fit(texts) for low in (True, False))
    again = loads(dumps(small))
    for tokenizer in (small, again):
        assert tokenizer.lowercase
        assert tokenizer.decode(tokenizer.encode("Eine FRAU")) == "eine frau"
    assert again.encode("Eine FRAU") == small.encode("eine frau")
    assert not loads(dumps(large)).lowercase
    assert loads(dumps(large)).decode(large.encode("Eine FRAU")) == "Eine FRAU"


def test_multi30k(zoo_data):
    data = create_data("multi30k", tokenizer="byte", context=300, path=zoo_data)
    data.setup()
    assert [len(data.pairs(s)) for s in ("train", "val", "test")] == [29_000, 1_014, 1_000]
    assert data.pairs("train")[0] == (
        "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
        "Two young, White males are outside near many bushes.",
    )
    with pytest.raises(zoo.ZooError, match="Choose two of de, en and fr"):
        create_data("multi30k", target="de", path=zoo_data)
