"""From a file of series to quantiles of its future, and scores."""

import csv
import math
from pathlib import Path

import pytest
import torch

from zoo.cli.main import main

SIZES = ["data.length=16", "data.horizon=4", "trainer.max_steps=2", "trainer.val_check_interval=2"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two shops with a season of 7 days, a promotion that is known in advance, and one day that is missing."""
    noise = torch.randn(2, 90, generator=torch.Generator().manual_seed(0)) / 10
    with (tmp_path / "sales.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["shop", "day", "sold", "promotion"])
        for shop in range(2):
            for day in range(94):
                sold = 5 + shop + math.sin(day * 2 * math.pi / 7) + (float(noise[shop, day]) if day < 90 else 0.0)
                writer.writerow([f"s{shop}", day, "" if day >= 90 or day == 40 else sold, int(day % 10 == 0)])
    return tmp_path / "sales.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as text:
        return list(csv.DictReader(text))


def test_the_future_of_own_series(cli, file: Path, tmp_path: Path) -> None:
    given = ["data=series", f"data.path={file}", "data.time=day", "data.id=shop", "data.covariates=[promotion]"]
    told = cli("model=deepar", "model.d_model=8", *given, *SIZES, f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    assert "2 of 180 steps, sold; covariates promotion; 1.1% missing" in " ".join(told.out.split())
    assert (tmp_path / "run/samples/final-forecasts.png").is_file()
    told = cli("forecast", "run", "--quantiles", "0.9,0.1,0.5", "-n", "50", entry=main)
    assert told.code == 0, told.err
    found = rows(tmp_path / "run/samples/forecast.csv")
    assert list(found[0]) == ["shop", "day", "sold", "sold_0.1", "sold_0.5", "sold_0.9"]
    assert [(row["shop"], row["day"]) for row in found] == [(f"s{k}", str(d)) for k in range(2) for d in range(90, 94)]
    assert all(float(row["sold_0.1"]) <= float(row["sold_0.5"]) <= float(row["sold_0.9"]) for row in found)
    assert (tmp_path / "run/samples/forecast.png").is_file()
    for words, message in (
        (["--steps", "5"], "4 steps after the end of the series, and 5 are needed"),
        (["--quantiles", "1.5"], "not numbers between 0 and 1"),
        (["--out", "a.txt"], "not a .csv file"),
    ):
        told = cli("forecast", "run", *words, entry=main)
        assert told.code == 1
        assert message in told.err
    told = cli("evaluate", "run", "--draws", "1", entry=main)
    assert told.code == 0, told.err
    assert "crps@" in told.out
    assert "coverage80@" in told.out
    assert "nll_density@" in told.out


def test_least_squares_read_the_future(cli, tmp_path: Path) -> None:
    """Of a series that is ten times the covariate of the same day, the forecast is that of the rows after the end."""
    known = [(7 * day) % 5 for day in range(94)]
    lines = [f"{day},{'' if day >= 90 else 10 * c},{c}" for day, c in enumerate(known)]
    (tmp_path / "a.csv").write_text("day,sold,price\n" + "\n".join(lines) + "\n")
    given = ["data=series", f"data.path={tmp_path / 'a.csv'}", "data.time=day", "data.covariates=[price]"]
    told = cli("model=var", "model.order=1", *given, *SIZES[:2], f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    assert cli("forecast", "run", "-n", "20", "--out", "f.csv", entry=main).code == 0
    assert [float(row["sold"]) for row in rows(tmp_path / "f.csv")] == pytest.approx(
        [10 * c for c in known[90:]], abs=0.1
    )


def test_a_naive_forecast_of_the_end(cli, tmp_path: Path) -> None:
    """The mean is the last season, and another file continues at its own end."""
    for name, size in (("a.csv", 80), ("b.csv", 83)):
        (tmp_path / name).write_text("x\n" + "".join(f"{100 * (i % 4) + i}\n" for i in range(size)))
    given = ["data=series", f"data.path={tmp_path / 'a.csv'}", *SIZES[:2], f"hydra.run.dir={tmp_path / 'run'}"]
    told = cli("model=seasonal_naive", "model.period=4", *given)
    assert told.code == 0, told.err
    assert cli("forecast", "run", "-n", "4000", "--steps", "6", "--out", "f.csv", entry=main).code == 0
    found = rows(tmp_path / "f.csv")
    assert [row["step"] for row in found] == [str(i) for i in range(80, 86)]
    last = [100 * (i % 4) + i for i in range(76, 80)]
    assert [float(row["x"]) for row in found] == pytest.approx([*last, *last[:2]], abs=0.5)
    assert cli("forecast", "run", f"data.path={tmp_path / 'b.csv'}", "--out", "g.csv", entry=main).code == 0
    assert rows(tmp_path / "g.csv")[0]["step"] == "83"
    told = cli("model=vae", *given[:-1], *SIZES[2:], "data.missing=forward", f"hydra.run.dir={tmp_path / 'vae'}")
    assert told.code == 0, told.err
    told = cli("forecast", "vae", entry=main)
    assert told.code == 1
    assert "does not forecast series" in told.err
    assert cli("sample", "vae", "-n", "3", "--out", "w.csv", entry=main).code == 0
    assert len(rows(tmp_path / "w.csv")) == 3 * 16
