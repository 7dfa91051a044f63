"""The results page agrees with its records, and records are taken from runs."""

import json
import re
from io import StringIO
from pathlib import Path
from statistics import median

import pytest
import yaml
from omegaconf import OmegaConf
from rich.console import Console

from tests import results
from tests.results import command, markdown, placeless
from zoo.benchmarks.report import report
from zoo.cli.main import main
from zoo.config.compose import compose
from zoo.config.recipes import CONF
from zoo.core.errors import ZooError

SPEED = Path(__file__).parents[1] / ".github" / "docs" / "speed.md"
PAGE = Path(__file__).parents[1] / ".github" / "docs" / "results.md"
FOLDER = PAGE.with_name("results")
SECTIONS = yaml.safe_load((FOLDER / "rows.yaml").read_text())["sections"]
RECORDS = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


def test_the_page_is_made_from_the_records() -> None:
    assert PAGE.read_text() == markdown(FOLDER), "python -m tests.results"


def test_every_record_is_shown_and_has_what_a_rerun_needs() -> None:
    shown = {name for section in SECTIONS for name in section["records"]}
    assert RECORDS.keys() <= shown
    for name, record in RECORDS.items():
        assert record["command"].startswith("python train.py "), name
        assert str(record["seed"]).startswith("0")
        assert record["minutes"] > 0
        assert record["hardware"]
        assert record["commit"]
        assert "last.ckpt" in record["checkpoints"], name


def test_every_column_is_measured_somewhere() -> None:
    """A metric that no record contains has a mistyped name: its column would be empty."""
    for section in SECTIONS:
        records = [RECORDS[name] for name in section["records"] if name in RECORDS]
        measured = {m for r in records for c in r["checkpoints"].values() for m in c["metrics"]}
        if len(records) == len(section["records"]):
            assert set(section["metrics"]) <= measured, section["title"]


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes(recipe: str) -> None:
    cfg = compose(f"experiment={recipe}")
    OmegaConf.to_container(cfg, resolve=True)
    assert (CONF / "experiment" / f"{recipe}.yaml").read_text().startswith("# @package _global_\n# ")


def test_a_row_that_was_not_run_carries_its_command() -> None:
    assert command("stacked_mnist", None) == "python train.py experiment=stacked_mnist    # not run yet"
    assert command("gan-digits", None) == "python train.py model=gan data=digits    # not run yet"


def test_commands_name_no_folder_of_a_machine() -> None:
    told = "train.py experiment=a init_from=/home/me/runs/pre hydra.run.dir=/tmp/x model.beta=2 data.path=/data/own.txt"
    assert placeless(told) == "train.py experiment=a init_from=pre model.beta=2 data.path=own.txt"


def test_from_runs_to_the_page(cli, tmp_path) -> None:
    run = tmp_path / "runs" / "2026-01-01" / "10-00-00-ae-digits"
    page, folder = tmp_path / "page.md", tmp_path / "results"
    folder.mkdir()
    metric = "fd_digits@180_test"
    row = {"title": "Autoencoder", "text": "One.", "metrics": [metric], "records": ["ae-digits", "vae-digits"]}
    (folder / "rows.yaml").write_text(yaml.safe_dump({"introduction": "# All", "sections": [row]}))
    assert cli("model=ae", "trainer=smoke", f"hydra.run.dir={run}").code == 0
    with pytest.raises(ZooError, match="Measure it first"):
        results.update(page, [run])
    assert not page.exists()
    assert cli("evaluate", str(run), str(run / "last.ckpt"), "-n", "180", "--only", "samples", entry=main).code == 0
    told = cli(str(run), "--page", str(page), entry=results.main)
    assert told.code == 0, told.err
    record = json.loads((folder / "ae-digits.json").read_text())
    assert record["command"] == "python train.py model=ae trainer=smoke", "folders of this machine are removed"
    assert 0 < record["minutes"] < 5
    best = record["checkpoints"]["best.ckpt"]["metrics"][metric]
    text = page.read_text()
    assert f"{best['value']:.4g}" in text
    assert f"{best['real_data_reference']:.4g}" in text
    assert "python train.py model=vae data=digits    # not run yet" in text
    results.update(page, [Path(f"vae-digits={run}")])
    assert json.loads((folder / "vae-digits.json").read_text()) == record, "NAME=RUN"
    assert "# not run yet" not in page.read_text()


def test_runs_of_several_seeds_are_one_row() -> None:
    def record(seed: int, value: float) -> dict:
        found = {"parameters": 1, "sha256": str(seed), "metrics": {"fd": {"value": value, "error": None}}}
        told = "python train.py model=gan" + (f" seed={seed}" if seed else "")
        return {"command": told, "seed": seed, "minutes": 1.0 + seed, "checkpoints": {"last.ckpt": found}}

    one = results.combined([record(2, 5.0), record(0, 1.0), record(1, 3.0)])
    assert one["command"] == "python train.py -m model=gan seed=0,1,2"
    assert one["minutes"] == 2.0
    assert one["checkpoints"]["last.ckpt"]["sha256"] == ["0", "1", "2"]
    assert one["checkpoints"]["last.ckpt"]["metrics"]["fd"] == {"value": 3.0, "error": 2.0, "seeds": [1.0, 3.0, 5.0]}
    assert command("gan-digits", one).endswith("# seeds 0,1,2")
    with pytest.raises(ZooError, match="the same seed"):
        results.combined([record(1, 1.0), record(1, 1.0)])
    assert results.combined([record(1, 1.0)]) == record(1, 1.0)


@pytest.mark.parametrize("path", sorted(SPEED.with_name("speed").glob("*.json")), ids=lambda path: path.stem)
def test_figures_of_speed_are_those_of_the_records(path: Path) -> None:
    page, record = SPEED.read_text(), json.loads(path.read_text())
    assert record["hardware"]
    if record["command"].endswith("--startup"):
        wanted = [f"| `{typed}` | {median(taken):.2f} |" for typed, taken in record["seconds"].items()]
    elif "exponents" in record:
        wanted = [", ".join(f"{key} {power:.2f}" for key, power in record["exponents"].items())]
    elif "answers" in record:  # of a server under load
        numbers = [
            *record["answers"].values(),
            record["errors_5xx"],
            *record["mb_of_each_tenth"],
        ]
        wanted = [" | ".join(map(str, [*numbers, record["seconds"]]))]
    elif "results" in record:  # of servers beside one another
        names = ["zoo_tokens_per_second"]
        for rival in ("transformers", "transformers_batching", "litserve"):
            names += [f"{rival}_tokens_per_second", f"zoo_times_{rival}"]
        wanted = [" | ".join(str(row[key]) for key in ["streams", *names]) for row in record["results"]]
    else:
        out = StringIO()
        report(record["measured"], Console(file=out, width=400))
        wanted = [line for line in cells(out.getvalue()) if "---" not in line][1:]  # a heading may cover several
    assert wanted
    for line in wanted:
        assert any(line.strip("| ") in row for row in cells(page)), line


def cells(text: str) -> list[str]:
    """Return the rows of all tables, without the spaces that align columns."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip().startswith("|")]


def test_rows_below_their_target_are_named() -> None:
    """On digits: a larger distance, or a smaller coverage, than the Gaussian mixture."""
    page = next(
        part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith("Handwritten digits, 8x8")
    )
    rows = {
        name: cells
        for name, *cells in (line.strip("| ").split(" | ") for line in page.splitlines() if "-digits |" in line)
    }
    values = {
        name.removesuffix("-digits"): [float(cell.split()[0]) for cell in cells[:2]]
        for name, cells in rows.items()
        if cells  # it was run
    }
    baselines = {"gmm", "ppca", "marginal", "noise", "copies"}
    distance, coverage = values["gmm"]
    missed = {n for n, (d, c) in values.items() if n not in baselines and (d >= distance or c <= coverage)}
    sentence = page[page.index("The target is missed by") :].partition(".")[0]
    assert missed == set(re.findall(r"`(\w+)`", sentence))
    assert "gan" not in missed
