"""`zoo evaluate` on small and labelled data: finished groups are kept, and sets that are too small are reported."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo.cli.main import main
from zoo.core.errors import ZooError
from zoo.evaluation.context import EvaluationConfig, Metric
from zoo.evaluation.evaluate import average, evaluate, record
from zoo.evaluation.features import base
from zoo.evaluation.suites.samples import SampleSuite


def pictures(root: Path, n: int, classes: int = 1) -> Path:
    """Save n random grey pictures, in sub-folders if there are classes."""
    generator = torch.Generator().manual_seed(n)
    for number in range(n):
        folder = root / f"class{number % classes}" if classes > 1 else root
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (6, 6), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return root


def trained(cli, tmp_path: Path, folder: Path, *overrides: str) -> Path:
    run = tmp_path / "run"
    told = cli("data=images", f"data.path={folder}", "trainer=smoke", f"hydra.run.dir={run}", *overrides)
    assert told.code == 0, told.err
    return run


def test_a_labelled_folder(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classifier is trained inside the evaluation, which runs without gradients."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", 80, classes=2), "model=copies")
    told = cli("evaluate", str(run), "-n", "40", entry=main)
    assert told.code == 0, told.err
    found = json.loads((run / "metrics.json").read_text())["best.ckpt"]
    assert found["metrics"]["copied@40_test"]["value"] > 0.9
    assert 0 <= found["features"]["accuracy"] <= 1
    assert "names only" in told.out, "noise has no classes, so the classifier is bad, and that is said"
    assert "with accuracy" in told.out


@pytest.mark.parametrize("n", [3, 6, 12])
@pytest.mark.parametrize("model", ["vae", "gan"])
def test_a_few_pictures(cli, tmp_path: Path, model: str, n: int) -> None:
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", n), f"model={model}")
    told = cli("evaluate", str(run), "-n", "10", entry=main)
    assert told.code == 0, told.err
    metrics = json.loads((run / "metrics.json").read_text())
    found = next(iter(metrics.values()))["metrics"]
    precision = next(m for name, m in found.items() if name.startswith("precision"))
    assert precision["note"] == "not measured: fewer than 6 held-out samples"
    assert "not measured" in told.out.replace("\n", " ")
    distance = next(m for name, m in found.items() if name.startswith("fd_"))
    assert (distance["value"] is not None) == (n >= 6)


def test_finished_groups_are_kept_when_a_later_one_fails(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", 20), "model=vae")

    def fails(self, context):
        raise ZooError("features=broken: cannot be measured. Choose others.")

    monkeypatch.setattr(SampleSuite, "measure", fails)
    told = cli("evaluate", str(run), "-n", "10", "-k", "2", entry=main)
    assert told.code == 1
    kept = json.loads((run / "metrics.json").read_text())["best.ckpt"]["metrics"]
    assert any(name.startswith("nelbo") for name in kept)


def test_mean_and_deviation_over_draws(cli, tmp_path: Path) -> None:
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", 60), "model=gan")
    single = [evaluate(run, EvaluationConfig(samples=20, draws=1, seed=seed)).scores for seed in (5, 6, 7)]
    together = evaluate(run, EvaluationConfig(samples=20, draws=3, seed=5)).scores
    name = next(name for name in together if name.startswith("fd_"))
    values = torch.tensor([scores[name].value for scores in single], dtype=torch.float64)
    assert together[name].value == pytest.approx(float(values.mean()))
    assert together[name].error == pytest.approx(float(values.std()))
    assert together[name].error > 0
    assert together[name].note == "mean and standard deviation over 3 draws"
    assert single[0][name].error is None
    told = cli("evaluate", str(run), "-n", "20", "--draws", "2", entry=main)
    assert "±" in told.out


def test_draws_that_cannot_be_measured_stay_so() -> None:
    lacking = Metric(math.nan, "lower", note="not measured: fewer than 6 held-out samples")
    assert average([lacking, lacking]) is lacking
    mean = average([Metric(1.0, "lower", 2.0), Metric(3.0, "lower", 4.0)])
    assert (mean.value, mean.error, mean.real_data_reference) == (2, 2**0.5, 3)


def test_metrics_of_the_samples_keep_the_features_in_the_record(cli, tmp_path: Path) -> None:
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", 20), "model=vae")
    protocol = EvaluationConfig(samples=10, draws=1)
    for only in ("samples", "likelihood"):
        record(evaluate(run, protocol, only=[only]))
    assert json.loads((run / "metrics.json").read_text())["best.ckpt"]["features"]["name"] == "pixels"
    assert base.LOW_ACCURACY > 0.5
