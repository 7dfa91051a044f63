"""Pairs from the command line to a translation: a training, what it shows, its evaluation, and new sources."""

import json

import torch

import zoo
from zoo.cli.main import main
from zoo.core.spaces import Pair


def test_a_training_on_pairs_from_end_to_end(cli, tmp_path):
    words = {"ein": "a", "der": "the", "Hund": "dog", "Mann": "man", "Ball": "ball", "spielt": "plays", "rennt": "runs"}
    lines = [(a, b, c) for a in ("ein", "der") for b in ("Hund", "Mann", "Ball") for c in ("spielt", "rennt")] * 8
    pairs = "".join(f"{' '.join(line)}\t{' '.join(words[w] for w in line)}\n" for line in lines)
    (tmp_path / "toy").mkdir()
    for split in ("train", "val", "test"):  # the same: a test of the parts, not of generalisation
        (tmp_path / "toy" / f"{split}.tsv").write_text(pairs)
    done = cli(
        "model=seq2seq", "data=pairs", "data.path=toy", "data/tokenizer=word", "data.context=40",
        "data.batch_size=16", "model.backbone.d_model=32", "model.backbone.dropout=0", "model.optimizer.lr=0.02",
        "trainer=cpu", "trainer.max_steps=240", "trainer.val_check_interval=120", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    assert {"val/bleu", "val/exact", "val/bits_per_byte"} <= set(header)
    reached = [row.split(",")[header.index("val/exact")] for row in rows[1:]]
    assert float([r for r in reached if r][-1]) == 1
    assert "source  " in (tmp_path / "run/samples/final.txt").read_text()

    assert cli("sample", "run", "--prompt", "der Hund rennt", entry=main).out.strip() == "the dog runs"
    assert cli("sample", "run", "--prompt", "ein Mann spielt", "beams=3", entry=main).out.strip() == "a man plays"

    assert cli("evaluate", "run", entry=main).code == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["best.ckpt"]["metrics"]
    n = len(lines)
    assert metrics[f"exact_beam5@{n}_test"]["value"] == metrics[f"exact_greedy@{n}_test"]["value"] == 1
    assert "tok:13a" in metrics[f"bleu_beam5@{n}_test"]["note"]
    assert 0 < metrics["bits_per_byte@all_test"]["value"] < 0.5


def test_plain_text_comes_first_and_pairs_then(cli, tmp_path):
    """T5's weights and tokenizer, pre-trained by restoring spans, go into a training on pairs."""
    (tmp_path / "toy.txt").write_text("the dog runs and a man plays with the ball\n" * 60)
    (tmp_path / "toy.tsv").write_text("the dog\tdog the\na man\tman a\nthe ball\tball the\n" * 14)
    small = ["model=t5", "data.context=20", "data.batch_size=8", "trainer=cpu", "trainer.max_steps=2",
             "trainer.val_check_interval=2", "model.backbone.d_model=32", "model.backbone.n_heads=2",
             "model.backbone.n_layers=1"]  # fmt: skip
    done = cli(*small, "data=text", "data.path=toy.txt", "data/tokenizer=char", "hydra.run.dir=plain")
    assert done.code == 0, done.err
    assert cli("evaluate", "plain", "--only", "likelihood", entry=main).code == 0
    metrics = json.loads((tmp_path / "plain/metrics.json").read_text())["best.ckpt"]["metrics"]
    assert metrics["bits_per_byte@all_test_blocks20_spans"]["value"] > 1
    assert cli("sample", "plain", "--prompt", "the dog", entry=main).code == 0
    done = cli(*small, "data=pairs", "data.path=toy.tsv", "init_from=plain",
               "model.optimizer.muon_lr=1e-9", "model.optimizer.lr=1e-9", "hydra.run.dir=pairs")  # fmt: skip
    assert done.code == 0, done.err
    before, after = zoo.load("plain"), zoo.load("pairs")
    assert isinstance(after.spec.x, Pair)
    assert after.spec.tokens.tokenizer == before.spec.tokens.tokenizer
    for (name, one), two in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), two.float(), atol=1e-6), name
