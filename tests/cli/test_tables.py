"""A table from training to CSV: the columns of the data, cells that are given, and scores that expose copies."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.cli.main import main
from zoo.core.columns import Column
from zoo.data.table.rows import texts_of
from zoo.evaluation.context import EvaluationConfig
from zoo.evaluation.evaluate import evaluate
from zoo.viz.tables import charts, shares_of

SMOKE = ["data=diabetes", "trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.accelerator=cpu"]
HEADING = "age,sex,bmi,bp,s1,s2,s3,s4,s5,s6,progression"


def read(path: Path) -> list[dict[str, str]]:
    text = path.read_text()
    assert text.splitlines()[0] == HEADING
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_of_a_run(cli, tmp_path: Path) -> None:
    told = cli("model=gaussian_copula", "model.sweeps=3", *SMOKE, f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    assert "age (19 to 79), sex (2 categories)" in " ".join(told.out.split())
    assert len(read(tmp_path / "run" / "samples" / "000001.csv")) == 100
    told = cli("sample", "run", "-n", "30", "where=sex=2", "--seed", "3", entry=main)
    assert told.code == 0, told.err
    rows = read(tmp_path / "run" / "samples" / "seed-3.csv")
    assert len(rows) == 30
    assert {row["sex"] for row in rows} == {"2"}
    assert all(len(row["s5"].partition(".")[2]) == 4 for row in rows), "decimals as in the data"
    assert cli("sample", "run", "-n", "3", "--out", "x.npy", entry=main).code == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 12)
    for words, message in ((["--out", "x.png"], "Use .csv or .npy"), (["where=sex=5"], "category of sex")):
        told = cli("sample", "run", *words, entry=main)
        assert told.code == 1
        assert message in told.err
    data = zoo.create_data("mixed_table", path=str(tmp_path / "run" / "samples" / "000001.csv"), batch_size=8)
    assert [column.kind for column in data.spec.x.columns] == ["number", "category", *["number"] * 9]


def test_scores_expose_copies(cli, tmp_path: Path) -> None:
    told = cli("model=copies", *SMOKE, f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    found = evaluate(tmp_path / "run", EvaluationConfig(samples=300), only=["tables"]).scores
    scores = {name.partition("@")[0]: score for name, score in found.items()}
    assert list(scores) == ["column_shapes", "pair_trends", "copied_rows", "membership_auc", "train_on_samples_r2"]
    assert scores["copied_rows"].value == 1
    assert scores["copied_rows"].real_data_reference == 0
    assert scores["membership_auc"].value > 0.65
    assert scores["column_shapes"].value == pytest.approx(scores["column_shapes"].real_data_reference, abs=0.05)
    assert len(scores["column_shapes"].parts) == 11
    assert len(scores["pair_trends"].parts) == 55


def test_constraints_from_the_command_line_to_the_scores(cli, tmp_path: Path) -> None:
    """A copula alone does not keep an order: without the rule, some samples break it."""
    lines = [f"{i % 17},{i % 17 + (i * i) % 5},{'north' if i % 3 else ''}" for i in range(300)]
    (tmp_path / "all.csv").write_text("start,end,side\n" + "\n".join(lines) + "\n")
    words = [
        "model=gaussian_copula",
        "model.sweeps=2",
        "data=mixed_table",
        f"data.path={tmp_path / 'all.csv'}",
        *SMOKE[1:],
    ]
    for name, more in (("ruled", ['data.constraints=["start<=end"]']), ("free", [])):
        told = cli(*words, *more, f"hydra.run.dir={tmp_path / name}")
        assert told.code == 0, told.err
        assert ("constraints" in told.out) == bool(more)
        assert cli("sample", name, "-n", "200", "--out", f"{name}.csv", entry=main).code == 0
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").open()))
        assert len(rows) == 200
        assert all(int(row["start"]) <= int(row["end"]) for row in rows) == bool(more)
    found = evaluate(tmp_path / "ruled", EvaluationConfig(samples=100), only=["tables"]).scores
    kept = {name.partition("@")[0]: score for name, score in found.items()}["constraints_kept"]
    assert kept.value == kept.real_data_reference == 1
    told = cli(*words, 'data.constraints=["end<start"]', f"hydra.run.dir={tmp_path / 'bad'}")
    assert told.code == 1
    assert "data.constraints=end<start: 300 rows of the data break it, the first is row 1." in " ".join(
        told.err.split()
    )
    (tmp_path / "gaps.csv").write_text("start,end,side\n9,1,?\n3,,north\n")
    told = cli("edit", "ruled", "--rows", "gaps.csv", "--out", "full.csv", entry=main)
    assert told.code == 0
    assert "1 filled row still breaks data.constraints after 50 tries." in told.err, "its given cells do"
    (tmp_path / "gaps.csv").write_text("start,end,side\n3,,north\n")
    assert not cli("edit", "ruled", "--rows", "gaps.csv", "--out", "full.csv", entry=main).err


def test_a_picture_shows_every_column() -> None:
    data = zoo.create_data("synthetic_table", n_rows=400)
    columns, cells = data.content
    picture = charts(columns, cells[:200], cells[200:])
    assert picture.shape == (120, 4 * 220, 3)
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)}) > 3
    huge = Column("id", "number", low=1e30, high=1e30 + 2**60, knots=(0, 1), scores=(-1, 1))
    assert shares_of(huge, torch.linspace(1e30, 1e30 + 2**60, 3, dtype=torch.float64))
    data.setup()
    assert len(texts_of(data.spec.x, data.val[0])[1]) == 40


def test_empty_cells_come_back_filled(cli, tmp_path: Path) -> None:
    """Of a table in which the colour determines the number. Given cells, keys and further columns stay as they are."""
    lines = [
        f"id{i},{'red' if i % 2 else 'blue'},{10.5 if i % 2 else 20.0 + i % 3},{'' if i % 4 == 0 else 'x'}"
        for i in range(200)
    ]
    (tmp_path / "all.csv").write_text("id,colour,size,note\n" + "\n".join(lines) + "\n")
    words = ["model=chow_liu", "data=mixed_table", f"data.path={tmp_path / 'all.csv'}", *SMOKE[1:]]
    told = cli(*words, "data.types=[size:number]", f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    (tmp_path / "gaps.csv").write_text(
        'more,colour,size,note,id\n"1,5",red,,x,p\n2,,10.5,NA,q\n3,blue,22.00,x,\n4,?,20,x,r\n'
    )
    told = cli("edit", "run", "--rows", "gaps.csv", "--out", "full.csv", entry=main)
    assert told.code == 0, told.err
    rows = list(csv.DictReader((tmp_path / "full.csv").open()))
    assert list(rows[0]) == ["more", "colour", "size", "note", "id"]
    assert [row["colour"] for row in rows] == ["red", "red", "blue", "blue"]
    assert [row["size"] for row in rows] == ["10.5", "10.5", "22.00", "20"]
    assert [row["note"] for row in rows] == ["x"] * 4, "a filled cell is not a missing value"
    assert [row["id"] for row in rows] == ["p", "q", "", "r"], "keys are not filled in"
    assert rows[0]["more"] == "1,5"
    (tmp_path / "bad.csv").write_text("colour,size,note\ngreen,,x\nred,1000,x\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "uneven.csv").write_text("colour,size,note\nred,1\n")
    (tmp_path / "few.csv").write_text("colour,size\nred,\nred,10.5\n")
    for extra, message in (
        (["--rows", "bad.csv"], "row 1: unknown category of colour"),
        (["--rows", "few.csv"], "column note is missing. Add it"),
        (["--rows", "none.csv"], "no such file"),
        (["--rows", "empty.csv"], "--rows=empty.csv: "),
        (["--rows", "uneven.csv"], "--rows=uneven.csv: line 2 has"),
        (["--rows", "gaps.csv", "--out", "x.npy"], "Use a name that ends in .csv"),
        (["--rows", "gaps.csv", "-n", "3"], "not together with -n"),
        ([], "--image: nothing to edit"),
    ):
        told = cli("edit", "run", *extra, entry=main)
        assert told.code == 1
        assert message in told.err
