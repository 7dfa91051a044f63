"""`zoo evaluate`: every family on one protocol, names that carry it, records that add up."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from zoo.cli.main import main
from zoo.data.image.digits import Digits
from zoo.evaluation.context import EvaluationConfig, EvaluationContext, count
from zoo.evaluation.evaluate import evaluate
from zoo.evaluation.suites.likelihood import LikelihoodSuite
from zoo.evaluation.suites.samples import in_equal_parts, samples
from zoo.models.abilities import ExactLikelihood
from zoo.viz.images import save_png

SMOKE = ["trainer=smoke", "seed=1"]


KEPT: dict[tuple[str, ...], Path] = {}  # overrides -> a run that nothing changes


def trained(cli, tmp_path: Path, *overrides: str, again: bool = False) -> Path:
    """A run of four batches in a new folder; the second of equal ones is a copy of the first, except with `again`."""
    folder = tmp_path / overrides[0].partition("=")[2]
    if overrides in KEPT and not again:
        return shutil.copytree(KEPT[overrides], folder)
    result = cli(*overrides, *SMOKE, f"hydra.run.dir={folder}")
    assert result.code == 0, result.err
    if not again:
        KEPT[overrides] = shutil.copytree(folder, tmp_path.parent / f"kept-run-{len(KEPT)}")
    return folder


def test_a_suite_that_does_not_apply_is_refused_with_those_that_do(cli, tmp_path) -> None:
    run = trained(cli, tmp_path, "model=gan")
    told = cli("evaluate", str(run), "--only", "samples", "--only", "likelihood", entry=main)
    assert told.code == 1
    assert "--only=likelihood: this suite does not apply to gan with digits. Use " in told.err.replace("\n", " ")
    assert "samples" in told.err
    assert not (run / "metrics.json").exists(), "nothing was measured"


def test_two_families_side_by_side(cli, tmp_path, monkeypatch) -> None:
    runs = [trained(cli, tmp_path, f"model={name}") for name in ("vae", "gan")]
    told = cli("evaluate", *map(str, runs), "-n", "180", "-k", "3", entry=main)
    assert told.code == 0, told.err
    for word in (
        "vae",
        "gan",
        "real data",
        "fd_digits@180_test",
        "nelbo_density@180_test",
        "nearest_train_ratio@180_test",
    ):
        assert word in told.out.replace("\n", " "), word
    vae, gan = (json.loads((run / "metrics.json").read_text())["best.ckpt"] for run in runs)
    assert vae["metrics"].keys() > gan["metrics"].keys(), "a GAN has samples only"
    assert vae["protocol"] == {
        "split": "test",
        "samples": 180,
        "k": 3,
        "features": "auto",
        "weights": None,
        "seed": 0,
        "draws": 3,
        "judgements": [],
    }
    assert len(vae["features"]["sha256"]) == len(vae["sha256"]) == 64
    assert vae["batches"] == 4
    for score in [*vae["metrics"].values(), *gan["metrics"].values()]:
        assert isinstance(score["value"], (int, float))
    both = "fd_digits@180_test"
    assert (
        vae["metrics"][both]["real_data_reference"]
        == gan["metrics"][both]["real_data_reference"]
        < min(m["metrics"][both]["value"] for m in (vae, gan))
    )
    rates = vae["metrics"]["kl_to_standard_normal@180_test"]
    assert len(rates["parts"]) == 8
    assert math.isclose(sum(rates["parts"]), rates["value"], rel_tol=1e-5)
    events = EventAccumulator(str(runs[0])).Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata, "a row in the table of hyperparameters"
    (score,) = events.Scalars(f"zoo_evaluate/best/{both}")
    assert score.value == pytest.approx(vae["metrics"][both]["value"], rel=1e-5)
    assert score.step == 4
    assert not events.Tags()["histograms"], "one histogram alone would be an empty chart of distributions"

    told = cli(
        "evaluate", str(runs[0]), str(runs[0] / "last.ckpt"), "-n", "180", "-k", "3", "--only", "samples", entry=main
    )
    assert told.code == 0, told.err
    again = json.loads((runs[0] / "metrics.json").read_text())
    assert again["best.ckpt"] == vae, "the same numbers once more, and those of other groups are kept"
    assert again["last.ckpt"]["metrics"].keys() < vae["metrics"].keys()


def test_options_of_samples_are_in_the_names_and_are_kept_beside_the_others(cli, tmp_path) -> None:
    """The metrics with options are those of `sample` with them; the record holds both, under two names."""
    small = ["model/denoiser=mlp", "model.denoiser.width=16", "model.denoiser.depth=1"]
    run = trained(cli, tmp_path, "model=diffusion", *small)
    plain = ["-n", "180", "--draws", "1", "--only", "samples", "--features", "pixels"]
    told = cli("evaluate", str(run), *plain, entry=main)
    assert told.code == 0, told.err
    before = json.loads((run / "metrics.json").read_text())["best.ckpt"]
    words = ["steps=1", "guidance=2.0", "guidance_interval=[-3,3]"]
    told = cli("evaluate", str(run), *words, "-n", "180", "--draws", "1", "--features", "pixels", entry=main)
    assert told.code == 0, told.err
    record = json.loads((run / "metrics.json").read_text())["best.ckpt"]
    assert record["protocol"] == before["protocol"]
    ending = "_guidance=2_guidance_interval=-3,3_steps=1"
    new = {name: score for name, score in record["metrics"].items() if name not in before["metrics"]}
    assert {name.removesuffix(ending) for name in new} == set(before["metrics"]), "samples alone are measured again"
    assert all(record["metrics"][name] == score for name, score in before["metrics"].items()), "the others are kept"
    name = "fd_pixels@180_test"
    assert new[name + ending]["value"] != before["metrics"][name]["value"]
    assert new[name + ending]["real_data_reference"] == before["metrics"][name]["real_data_reference"]
    model, data = zoo.load(run), zoo.create_data("digits")
    data.setup()
    protocol = EvaluationConfig(samples=180, draws=1, features="pixels")
    options = {"steps": 1, "guidance": 2.0, "guidance_interval": [-3.0, 3.0]}
    for given, expected in ((options, new[name + ending]), ({}, before["metrics"][name])):
        with torch.no_grad():
            found = samples(EvaluationContext(model, data, protocol, given))[name]
        assert found.value == pytest.approx(expected["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stepps=2"], "did you mean 'steps'"),
        (["steps=0"], "must be greater than 0"),
        (["steps=2", "--only", "likelihood"], "--only=likelihood: measures no samples, which steps=2 is for."),
        (["guidance_interval=[3,-3]", "guidance=2"], "not two log-SNRs in ascending order"),
    ],
)
def test_options_that_do_not_fit_are_refused(cli, tmp_path, words, message) -> None:
    run = trained(cli, tmp_path, "model=diffusion", "model/denoiser=mlp", "model.denoiser.width=16")
    told = cli("evaluate", str(run), *words, "-n", "20", entry=main)
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert message in told.err
    assert not (run / "metrics.json").exists()


def test_models_without_samples_take_no_options(cli, tmp_path) -> None:
    run = trained(cli, tmp_path, "model=simclr")
    told = cli("evaluate", str(run), "steps=2", entry=main)
    assert told.code == 1
    assert "steps=2: simclr does not draw samples. Leave it out." in told.err


def test_text(cli, tmp_path) -> None:
    source = tmp_path / "notes"
    source.mkdir()
    (source / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 200)
    run = trained(
        cli, tmp_path, "model=gpt", "data=text", f"data.path={source}", "data/tokenizer=char", "data.context=32",
        "model.backbone.d_model=32", "model.backbone.n_layers=1", "data.batch_size=4",
    )  # fmt: skip
    found = evaluate(run)
    assert {"nats_per_char", "bits_per_byte", "distinct"} <= {
        name.rpartition("@")[0].rstrip("0123456789") for name in found.scores
    }
    nats = next(s.value for name, s in found.scores.items() if name.startswith("nats_per_char"))
    bits = next(s.value for name, s in found.scores.items() if name.startswith("bits_per_byte"))
    assert all("all_test_blocks32" in n for n in found.scores if "per_" in n), "the context policy is in the name"
    # Over all of the split, every token once: the sum of the model's own costs.
    data = zoo.create_data("text", path=str(source), tokenizer="char", context=32)
    data.setup()
    model = zoo.load(run)
    (cost, target), *rest = [model.token_nll(batch) for batch in data.test_dataloader()]
    for more, following in rest:
        cost, target = torch.cat([cost, more]), torch.cat([target, following])
    scored, letters = target >= 0, (target >= 0) & (target != model.end)
    assert nats == pytest.approx(float(cost.sum() / scored.sum()), rel=1e-5)
    assert bits == pytest.approx(float(cost[letters].sum() / letters.sum()) / math.log(2), rel=1e-5), "a byte a letter"


def test_points(cli, tmp_path) -> None:
    run = trained(cli, tmp_path, "model=gan", "data=grid25")
    scores = evaluate(run, EvaluationConfig(samples=500)).scores
    assert scores["modes_strict@500_test"].real_data_reference == 25
    assert scores["high_quality@500_test"].real_data_reference == pytest.approx(1 - math.exp(-4.5), abs=0.02)
    assert scores["modes_strict@500_test"].value < 25, "four batches do not find them"
    assert "fd_pixels@500_test" in scores


class Exact(ExactLikelihood, zoo.Model):
    """Hands out real data, or the likelihood of a uniform distribution over levels."""

    likelihood_kind = "discrete"

    def __init__(self, spec: zoo.DataSpec, source: torch.Tensor) -> None:
        super().__init__(spec)
        self.source = source

    def sample(self, n: int, *, condition=None, generator=None, **options):
        return self.source[torch.randint(len(self.source), (n,), generator=generator)]

    def log_prob(self, x, y=None):
        return torch.full((len(x),), -x[0].numel() * math.log(self.spec.image.levels))


@pytest.fixture(scope="module")
def digits() -> zoo.DataModule:
    data = zoo.create_data("digits")
    data.setup()
    return data


def test_bits_of_a_uniform_distribution(digits) -> None:
    scores = LikelihoodSuite().measure(
        EvaluationContext(Exact(digits.spec, digits.train[0]), digits, EvaluationConfig())
    )
    assert scores["nll@180_test"].value == pytest.approx(64 * math.log(17))
    assert scores["bpd@180_test"].value == pytest.approx(math.log2(17))
    assert scores["nll@180_test"].error == 0


def test_a_kind_of_likelihood_is_in_the_name_or_refused(digits) -> None:
    model = Exact(digits.spec, digits.train[0])
    model.likelihood_kind = "continuous"
    names = LikelihoodSuite().measure(EvaluationContext(model, digits, EvaluationConfig())).keys()
    assert names == {"nll_density@180_test"}, "bits per dimension are for probabilities"
    model.lacks("likelihood")
    assert not LikelihoodSuite().applies(model, digits)


def test_copies_are_exposed_and_held_out_data_are_not(digits) -> None:
    """Copies of training data have a perfect Frechet distance; only the probe detects them."""
    copies = samples(EvaluationContext(Exact(digits.spec, digits.train[0]), digits, EvaluationConfig(samples=500)))
    honest = samples(EvaluationContext(Exact(digits.spec, digits.val[0]), digits, EvaluationConfig(samples=500)))
    assert copies["fd_digits@500_test"].value < 1.2 * copies["fd_digits@500_test"].real_data_reference
    assert copies["copied@500_test"].value == 1
    assert copies["nearest_train_ratio@500_test"].value == 0
    assert honest["copied@500_test"].value < 0.05
    assert honest["nearest_train_ratio@500_test"].value == pytest.approx(1, abs=0.15)


def test_what_was_not_looked_through_is_said(digits, monkeypatch) -> None:
    """Data larger than memory: fewer samples; the name of the probe contains the number of training data."""
    monkeypatch.setattr("zoo.evaluation.context.MAX_VALUES", 64 * 400)
    scores = samples(EvaluationContext(Exact(digits.spec, digits.train[0]), digits, EvaluationConfig()))
    assert "fd_digits@400_test" in scores
    assert "copied_in_400@400_test" in scores
    assert "copied@400_test" not in scores


def test_training_never_touches_the_test_split(cli, tmp_path, monkeypatch) -> None:
    """Weights are chosen on validation data; before `zoo evaluate` the test split is empty."""
    load = Digits.load

    def without(self: Digits) -> None:
        load(self)
        del self.test

    monkeypatch.setattr(Digits, "load", without)
    trained(cli, tmp_path, "model=vae", again=True)
    with pytest.raises(AttributeError):
        evaluate(tmp_path / "vae")


def test_binarised_data_are_named(cli, tmp_path) -> None:
    class Dynamic:
        variant = "dynamic"
        test = (torch.zeros(10_000), torch.zeros(10_000))

    bench = EvaluationContext(None, Dynamic(), EvaluationConfig())  # type: ignore[arg-type]
    assert bench.name("nll") == "nll@10k_test_dynamic"
    assert zoo.create_data("mnist", binarize="threshold").variant == "threshold"
    assert [count(n) for n in (180, 1437, 5000)] == ["180", "1437", "5k"]


def test_equal_parts_use_every_sample_once() -> None:
    real, fake = torch.randn(50, 3), torch.randn(175, 3)
    found = in_equal_parts(real, fake)
    parts = [in_equal_parts(real, part)["coverage"] for part in fake[:150].split(50)]
    assert found["coverage"] == pytest.approx(sum(parts) / 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no run or checkpoint"),
        (["RUN", "--split", "train"], "not a split to evaluate on"),
        (["RUN", "--only", "sample"], "did you mean 'samples'"),
        (["RUN", "--features", "inception"], "weights"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(cli, tmp_path, arguments, words) -> None:
    run = trained(cli, tmp_path, "model=ae") if "RUN" in arguments else tmp_path
    told = cli("evaluate", *[str(run) if a == "RUN" else a for a in arguments], entry=main)
    assert told.code == 1
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not (run / "metrics.json").exists()


def test_data_that_have_moved(cli, tmp_path) -> None:
    for i in range(30):
        (tmp_path / "old").mkdir(exist_ok=True)
        save_png(tmp_path / "old" / f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    run = trained(cli, tmp_path, "model=ppca", "data=images", f"data.path={tmp_path / 'old'}", "data.batch_size=4")
    (tmp_path / "old").rename(tmp_path / "new=place")
    lost = cli("evaluate", str(run), "--only", "likelihood", entry=main)
    assert lost.code == 1
    assert "old: not found" in lost.err
    found = cli("evaluate", str(run), f"data.path={tmp_path / 'new=place'}", "--only", "likelihood", entry=main)
    assert found.code == 0, found.err
    assert json.loads((run / "metrics.json").read_text())["best.ckpt"]["data"]["path"] == str(tmp_path / "new=place")
    for word, told in (("data.pth=x", "did you mean 'path'"), ("data.flip=true", "not a text or path")):
        wrong = cli("evaluate", str(run), word, entry=main)
        assert (wrong.code, wrong.err.count("\n")) == (1, 1)
        assert told in wrong.err


def test_a_run_that_somebody_sent_cannot_read_the_environment_or_write_elsewhere(cli, tmp_path, monkeypatch) -> None:
    run = trained(cli, tmp_path, "model=ae")
    monkeypatch.setenv("SECRET", "hunter2")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("  name: digits", "  name: ${oc.env:SECRET}"))
    told = cli("evaluate", str(run), entry=main)
    assert told.code == 1
    assert "hunter2" not in told.out + told.err
    (run / "samples").rename(tmp_path / "elsewhere")
    (run / "samples").symlink_to(tmp_path / "elsewhere")
    told = cli("evaluate", str(run), entry=main)
    assert told.code == 1
    assert "is a link" in told.err


def test_equal_files_are_measured_once(cli, tmp_path, monkeypatch) -> None:
    from zoo.evaluation.suites.likelihood import LikelihoodSuite

    cli("model=ppca", "data=moons", "trainer=smoke", f"hydra.run.dir={tmp_path / 'run'}")
    best, last, other = (tmp_path / "run" / f"{name}.ckpt" for name in ("best", "last", "other"))
    last.write_bytes(best.read_bytes())
    content = torch.load(best)
    content["state_dict"] = {k: v * 2 if v.is_floating_point() else v for k, v in content["state_dict"].items()}
    torch.save(content, other)
    measured, measure = [], LikelihoodSuite.measure
    monkeypatch.setattr(LikelihoodSuite, "measure", lambda *given: measured.append(1) or measure(*given))
    told = cli("evaluate", str(best.parent), str(last), str(other), "--only", "likelihood", entry=main)
    assert told.code == 0, told.err
    found = json.loads((best.parent / "metrics.json").read_text())
    assert found["last.ckpt"] == found["best.ckpt"]
    assert found["other.ckpt"] != found["best.ckpt"], "the control: other weights"
    assert len(measured) == 2
