"""`zoo evaluate` on small and labelled data: finished groups are kept, and sets that are too small are reported."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from tests.contracts.specs import slow
from tests.interop.huggingface.test_load import drawn, trained_tokenizer
from zoo.cli.main import main
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationConfig, Metric
from zoo.evaluation.evaluate import average, evaluate, record
from zoo.evaluation.features import base
from zoo.evaluation.suites.samples import SampleSuite
from zoo.interop.huggingface import save


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


@pytest.mark.parametrize(
    ("model", "n"), [("vae", 3), ("gan", 6), ("vae", 12), *slow(("gan", 3), ("vae", 6), ("gan", 12))]
)
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


def test_metrics_that_cannot_be_recorded_are_shown(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", 20), "model=ae")

    def full(evaluation):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.evaluation.evaluate.record", full)
    told = cli("evaluate", str(run), "--only", "reconstruction", entry=main)
    assert told.code == 1
    assert "psnr" in told.out
    assert "metrics.json: no space left on device: the metrics above were not recorded" in told.err
    assert "wrote" not in told.err


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


def test_both_held_out_splits_are_one_larger_reference(cli, tmp_path: Path) -> None:
    run = trained(cli, tmp_path, pictures(tmp_path / "pictures", 60), "model=vae")
    values, sizes = {}, {}
    for split in ("val", "test", "held_out"):
        found = evaluate(run, EvaluationConfig(split, samples=20, draws=1), only=["reconstruction", "samples"]).scores
        assert all(name.endswith(f"_{split}") for name in found)
        values[split] = {name.partition("@")[0]: score.value for name, score in found.items()}
        (sizes[split],) = {int(name.split("@")[1].split("_")[0]) for name in found if name.startswith("reconstruction")}
    assert sizes["held_out"] == sizes["val"] + sizes["test"]
    weighted = sum(sizes[split] * values[split]["reconstruction_mse"] for split in ("val", "test"))
    assert values["held_out"]["reconstruction_mse"] == pytest.approx(weighted / sizes["held_out"], rel=1e-4)
    assert values["held_out"]["fd_pixels"] not in (values["val"]["fd_pixels"], values["test"]["fd_pixels"])
    told = cli("evaluate", str(run), "--split", "train", entry=main)
    assert "--split=train: not a split to evaluate on. Use test or val or held_out." in told.err


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


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Path, Path]:
    """A GPT-2 of `transformers` with the files of its tokenizer, and some text."""
    tokenizer = trained_tokenizer(99)
    config = drawn("gpt2").config
    config.vocab_size = tokenizer.vocab_size
    torch.manual_seed(0)
    type(drawn("gpt2"))(config).save_pretrained(tmp_path / "gpt2")
    for name, text in save._tokenizer_files(tokenizer, 40).items():
        (tmp_path / "gpt2" / name).write_text(text)
    (tmp_path / "notes.txt").write_text("\n".join(f"line {number}: {number * 7}" for number in range(900)))
    return tmp_path / "gpt2", tmp_path / "notes.txt"


@torch.no_grad()
def test_a_hugging_face_folder_is_scored_as_transformers_scores_it(cli, foreign, tmp_path: Path) -> None:
    folder, text = foreign
    told = cli("evaluate", str(folder), "data=text", f"data.path={text}", "--only", "likelihood", entry=main)
    assert told.code == 0, told.err
    found = json.loads((folder / "metrics.json").read_text())["model.safetensors"]["metrics"]
    (nats,) = (score["value"] for name, score in found.items() if name.startswith("nats_per_"))
    (perplexity,) = (score["value"] for name, score in found.items() if name.startswith("perplexity_"))
    theirs = type(drawn("gpt2")).from_pretrained(folder).eval()
    data = registry.build("data", {"name": "text", "path": str(text), "context": 40})
    data.use_tokenizer_from(zoo.load(folder).spec)
    data.setup()
    x, y = data.fetch(data.test, torch.arange(len(data.test[0])), make_generator(0), train=False)
    want = torch.nn.functional.cross_entropy(theirs(x).logits.flatten(0, 1).double(), y.flatten(), ignore_index=-100)
    assert nats == pytest.approx(float(want), rel=1e-5)
    assert perplexity == pytest.approx(math.exp(nats), rel=1e-6)
    assert not list(folder.glob("events.*"))
    for weight in theirs.parameters():
        weight.mul_(1.1)
    theirs.save_pretrained(folder)
    other = evaluate(folder, only=["likelihood"], data={"name": "text", "path": str(text)})
    assert abs(next(iter(other.scores.values())).value - nats) > 1e-3, "the control: other weights"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, r"a Hugging Face folder, which does not name its data. Add data=NAME"),
        ({"name": "text", "context": "10"}, "was trained on"),
        ({"name": "txet"}, "unknown data 'txet', did you mean 'text'"),
        ({"name": "digits"}, "context"),
    ],
)
def test_data_that_do_not_fit_a_hugging_face_folder(data, message, foreign) -> None:
    folder, text = foreign
    path = {"path": str(text)} if data.get("name") == "text" else {}
    with pytest.raises(ZooError, match=message):
        evaluate(folder, data=data | path)


def test_the_excess_over_a_known_density_is_the_divergence_in_closed_form(cli, tmp_path: Path) -> None:
    """KL of 8 separate Gaussians from the Gaussian with their moments: both entropies are known."""
    told = cli("model=ppca", "data=ring8", "trainer=smoke", f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    scores = evaluate(tmp_path / "run", only=["likelihood"]).scores
    excess = scores["excess_nll@10k_test"]
    data = registry.build("data", "ring8")
    kl = math.log(1 / (8 * data.sigma**2))  # log(2 pi e) - log(8 * 2 pi e sigma^2): the variances are 1
    assert excess.value == pytest.approx(kl, abs=0.02)
    assert 0 < excess.error < 0.02
    nll = scores["nll_density@10k_test"].value
    assert abs(nll - kl) > 1, "the control: the log-density alone is another number"
