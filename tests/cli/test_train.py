"""The command line in one process: files of a run, and error messages."""

import csv
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from tests.contracts.specs import CONVOLVED, MODELS, SIZES, info_of, one_recipe_of_each_class, settings_of
from zoo.cli.main import main
from zoo.viz.render import Renderer

SMOKE = ["trainer=smoke", "data.batch_size=16"]


def only_run(tmp_path: Path) -> Path:
    (run,) = (p.parent for p in tmp_path.glob("runs/*/*/config.yaml"))
    return run


def small(model: str) -> list[str]:
    """Overrides for what would take most of the time of a smoke run: deep networks, and steps of samplers and fits."""
    settings = settings_of(model)
    found = {
        "sampler": ["sampler.steps=4"] * ("steps" in settings.get("sampler", ())),
        "denoiser": ["denoiser.width=16"] * ("width" in settings.get("denoiser", ())),
        "coupling": ["coupling.pairs=64"] * ("pairs" in settings.get("coupling", ())),
        "transition": ["transition.steps=4"],
        "max_pairs": ["max_pairs=300", *["tune_rounds=0"] * (model == "phrase_based")],
        "iterations": ["iterations=2"],
        "num_generations": ["num_generations=2", "n_eval_prompts=16"],
    }
    if settings.get("backbone", {}).get("d_model", 0) > (96 if model == "gpt" else 64):
        known = {key: size for key, size in SIZES.items() if key in settings.backbone}
        found["backbone"] = [f"backbone.{key}={size}" for key, size in known.items()]
    if "policy" in settings:  # it and its teacher are language models
        backbone = ", ".join(f"{key}: {size}" for key, size in (SIZES | {"name": "transformer"}).items())
        found |= {key: [f"{key}={{name: language_model, backbone: {{{backbone}}}}}"] for key in ("policy", "teacher")}
    flat = settings.get("denoiser", {}).get("name") == "auto" and model not in CONVOLVED
    return ["model/denoiser=mlp"] * flat + [
        f"model.{word}" for key, words in found.items() if key in settings for word in words
    ]


def beginnings(folder: Path, to: Path, lines: int | None) -> Path:
    """A folder with the first lines of each text of Multi30k; the folder itself for other data."""
    for file in (folder / "multi30k").iterdir() if lines else ():
        (to / "multi30k").mkdir(exist_ok=True)
        with file.open(encoding="utf-8") as whole:
            (to / "multi30k" / file.name).write_text("".join(islice(whole, lines)), encoding="utf-8")
    return to if lines else folder


STAGES = ("two_stage", "next_scale")  # they need a run; see their tests


@pytest.mark.parametrize("model", one_recipe_of_each_class((name,) for name in MODELS if name not in STAGES))
def test_every_recipe_trains_on_its_own_data(model: str, cli, few_sources, tmp_path, request, monkeypatch) -> None:
    monkeypatch.setattr(Renderer, "n_samples", 16)
    smoke = [*SMOKE, "trainer.val_check_interval=4"]  # one validation, at the end
    options = smoke
    if (data := info_of(model).data) in ("mnist", "multi30k"):  # not in every installation
        path = beginnings(Path(request.getfixturevalue("zoo_data")), tmp_path, 800 if data == "multi30k" else None)
        options = [*smoke, f"data.path={path}"]
        options += ["model.max_samples=500"] * (data == "mnist")  # it is large
    options = [*options, *small(model)]
    result = cli(f"model={model}", *options)
    assert result.code == 0, result.err
    run = only_run(tmp_path)
    for name in ("best.ckpt", "last.ckpt", "metrics.csv", "config.yaml"):
        assert (run / name).stat().st_size > 0, name
    finals = list((run / "samples").glob("final.*"))
    without = info_of(model).family == "embedding" or model in ("reward_model", "vocoder")  # they do not sample
    assert len(finals) == (not without)
    assert all(str(final.relative_to(tmp_path)) in result.out for final in finals)
    assert f"tensorboard --logdir {run.relative_to(tmp_path)}" in result.out
    again = zoo.load(run)
    assert again.registered_name == info_of(model).registered


def test_a_training_that_is_shorter_than_the_logging_interval_has_a_curve(cli, tmp_path) -> None:
    """And the rates of two optimizers are named by what they train."""
    assert cli("model=gan", "data=ring8", "trainer=cpu", "trainer.max_steps=3").code == 0
    (row,) = [row for row in csv.DictReader((only_run(tmp_path) / "metrics.csv").open()) if row["train/loss_d"]]
    assert row["step"] == "2"
    assert float(row["lr/generator"]) > 0
    assert float(row["lr/discriminator"]) > 0


def test_a_run_folder_holds_what_the_dashboard_shows(cli, tmp_path) -> None:
    assert cli("model=vae", *SMOKE, "seed=3").code == 0
    run = only_run(tmp_path)
    assert re.fullmatch(r"\d\d-\d\d-\d\d-vae-digits", run.name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", run.parent.name)
    text = (run / "config.yaml").read_text()
    assert "seed: 3" in text
    assert "torch:" in text
    assert "${" not in text, "the configuration must be resolved"
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert {"train/loss", "val/loss", "lr", "step"} <= rows[0].keys()
    events = EventAccumulator(str(run), size_guidance={"images": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    assert {"view/samples", "view/reconstructions", "view/interpolations"} <= set(tags["images"])
    assert {"train/loss", "val/loss", "watch/lr", "watch/memory/peak_GB", "watch/speed/samples_per_s"} <= set(
        tags["scalars"]
    )
    assert any(t.startswith("watch/grad_norm/") for t in tags["scalars"])
    assert "custom_scalars__config__" in tags["tensors"]
    assert any(t.startswith("config") for t in tags["tensors"])
    assert {"_hparams_/session_start_info", "_hparams_/session_end_info"} <= events.summary_metadata.keys()
    assert len(list(run.rglob("events.out.tfevents.*"))) == 1
    assert [e.step for e in events.Images("view/samples")] == [2, 4], "pictures count batches"
    assert (run / "projector_config.pbtxt").is_file()
    picture = np.asarray(Image.open(run / "samples" / "final.png"))
    assert min(picture.shape[:2]) > 8 * 40, "small pictures are enlarged"
    assert (run / "samples" / "000002.png").is_file()


def test_two_optimizers_count_batches_too(cli, tmp_path) -> None:
    assert cli("model=gan", *SMOKE, "trainer.max_steps=6", "trainer.val_check_interval=3").code == 0
    run = only_run(tmp_path)
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    assert [e.step for e in events.Images("view/samples")] == [3, 6]
    steps = [e.step for e in events.Scalars("train/loss_d")]
    assert steps == list(range(6))


def test_a_length_that_is_no_multiple_of_the_interval_ends_with_a_validation(cli, tmp_path) -> None:
    assert cli("model=ae", *SMOKE, "trainer.max_steps=5", "trainer.val_check_interval=3").code == 0
    assert sorted(p.stem for p in (only_run(tmp_path) / "samples").glob("0*.png")) == ["000003", "000005"]


def test_the_same_seed_writes_the_same_table(cli, tmp_path) -> None:
    for seed in (1, 1, 2):
        assert cli("model=vae", *SMOKE, "trainer.deterministic=true", f"seed={seed}").code == 0
    one, two, other = (path.read_bytes() for path in sorted(tmp_path.glob("runs/*/*/metrics.csv")))
    assert one == two
    assert one != other


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_never_share_a_folder(cli, tmp_path) -> None:
    """Started in the same second, they would have the same name."""
    assert cli("model=ae", *SMOKE, "hydra.run.dir=mine").code == 0
    before = contents(tmp_path / "mine")
    second = cli("model=ae", *SMOKE, "hydra.run.dir=mine", "seed=1")
    assert second.code == 1
    assert "mine belongs to another run" in second.err
    assert contents(tmp_path / "mine") == before


def test_a_sweep_trains_one_after_the_other(cli, tmp_path) -> None:
    assert cli("-m", "model=ae,vae", *SMOKE).code == 0
    names = sorted(p.parent.name for p in tmp_path.glob("runs/*/*-sweep/*/best.ckpt"))
    assert names == ["0-ae-digits", "1-vae-digits"]


def test_resuming_goes_on_in_the_same_folder(cli, tmp_path) -> None:
    assert cli("model=ae", *SMOKE).code == 0
    run = only_run(tmp_path)
    before = (run / "metrics.csv").read_text().splitlines()
    result = cli(f"resume={run}", "trainer.max_steps=8")
    assert result.code == 0, result.err
    assert only_run(tmp_path) == run
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 8
    after = (run / "metrics.csv").read_text().splitlines()
    assert len(after) > len(before)
    assert [e.step for e in EventAccumulator(str(run)).Reload().Images("view/samples")] == [2, 4, 6, 8]
    refused = cli(f"resume={run}", "model.latent_dim=3")
    assert refused.code == 1
    assert "cannot change the model" in refused.err
    assert (run / "last.ckpt").is_file()


MISTAKES = {
    "unknown model": (["model=gna"], "unknown model 'gna', did you mean 'gan'"),
    "unknown data": (["data=dgits"], "did you mean 'digits'"),
    "unknown network": (
        ["model=gan", "model/generator=rsnet"],
        "unknown generator 'rsnet', did you mean 'resnet'",
    ),
    "unknown trainer": (["trainer=gup"], "unknown trainer 'gup'"),
    "unknown key": (
        ["model=vae", "model.latnet_dim=3"],
        "unknown setting 'latnet_dim', did you mean 'latent_dim'",
    ),
    "unknown network key": (
        ["model=gan", "model/generator=mlp", "model.generator.wdith=3"],
        "did you mean 'width'",
    ),
    "unknown trainer key": (["trainer.max_step=3"], "did you mean 'max_steps'"),
    "wrong type": (["model=vae", "model.latent_dim=big"], "model.latent_dim has a value of the wrong type"),
    "words for a number": (["model=simcse", "model.optimizer.lr=fast"], "Give a number: model.optimizer.lr=VALUE."),
    "words for an integer": (["model=vae", "model.latent_dim=big"], "Give an integer: model.latent_dim=VALUE."),
    "an odd decoder": (["model=mae", "model.decoder_width=30"], "model.decoder_width=30: must divide into 4 heads"),
    "a decoder by default": (["model=mae", "model.d_model=24"], "model.decoder_width=12, half of model.d_model: must"),
    "an odd encoder": (["model=mae", "model.d_model=30"], "model.d_model=30: must divide into 4 heads"),
    "out of range": (
        ["model=vae", "model.latent_dim=0"],
        "model.latent_dim=0 is out of range: it must be greater than 0",
    ),
    "no such choice": (["model=gan", "model.loss=hinges"], "did you mean 'hinge'"),
    "negative rate": (["model=ae", "model.optimizer.lr=-1"], "model.optimizer.lr=-1"),
    "no finite rate": (["model=vae", "model.optimizer.lr=inf"], "model.optimizer.lr=inf: not a finite number"),
    "a path for a name": (
        ["model=vae", "data=my/photos"],
        "data=my/photos: a path, not a name. Use data=NAME",
    ),
    "a setting as a flag": (
        ["--model", "vae"],
        "--model: not a flag. Write settings as KEY=VALUE, such as model=",
    ),
    "a setting elsewhere": (["max_steps=100"], "max_steps: no such setting. Did you mean trainer.max_steps?"),
    "missing data": (["model=vae", "data=mnist", "data.path=nowhere", "data.download=false"], "nowhere"),
    "missing folder": (["model=vae", "data=images", "data.path=nowhere"], "nowhere"),
    "missing text": (["model=gpt", "data=text", "data.path=nowhere"], "nowhere"),
    "batch too large": (
        ["model=ae", "data.batch_size=5000"],
        "data.batch_size=5000: larger than the training set",
    ),
    "points for convolutions": (["model=dcgan", "data=grid25"], "needs images"),
    "tokens for a GAN": (
        ["model=gan", "data=text", f"data.path={__file__}", "data.context=16"],
        "model=gan: learns image or vector data, but",
    ),
    "pictures for a prior of codes": (
        ["model=next_scale", "data=digits"],
        "is image. Add first_stage=RUN with latents of kind codes, or choose a model",
    ),
    "no steps": (["model=ae", "trainer.max_steps=0"], "at least 1"),
    "steps in words": (["model=ae", "trainer.max_steps=abc"], "trainer.max_steps=abc: not a number"),
    "steps without a number": (["model=ae", "trainer.max_steps=null"], "trainer.max_steps=None: not a number"),
    "logs in words": (["model=ae", "trainer.log_every_n_steps=x"], "trainer.log_every_n_steps=x: not a number"),
    "no such mode": (
        ["model=ae", "trainer.compile=reduce"],
        "unknown mode 'reduce', did you mean",
    ),
    "a number for a mode": (["model=ae", "trainer.compile=8"], "trainer.compile=8: a wrong value"),
    "not an override": (["model=ae", "nonsense"], "nonsense"),
    "no run to resume": (["resume=nowhere"], "resume=nowhere"),
    "seed in words": (["model=ae", "seed=abc"], "seed=abc: not a seed"),
    "seed too large": (["model=ae", "seed=99999999999999"], "Give an integer from 0 to 4294967295"),
    "size in words": (["model=ae", "data=images", "data.path=.", "data.size=64x64"], "data.size=64x64: not a size"),
    "unknown experiment": (["experiment=nope"], "unknown experiment 'nope'"),
    "plug-in of Hydra": (["hydra/sweeper=optuna"], "needs the package hydra-optuna-sweeper"),
    "epochs": (["trainer.max_epochs=3"], "use trainer.max_steps"),
    "rate by itself": (["lr=0.1"], "Did you mean model.optimizer.lr?"),
    "clipping a GAN": (["model=gan", "trainer.smoke=1"], "unknown setting"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_ends_in_one_sentence(case: str, cli, tmp_path, monkeypatch) -> None:
    arguments, message = MISTAKES[case]
    monkeypatch.delenv("ZOO_DATA", raising=False)
    result = cli(*arguments)
    assert result.code == 1
    assert message in result.err
    assert "Traceback" not in result.err
    assert len([line for line in result.err.splitlines() if line.strip()]) == 1
    assert not list(tmp_path.rglob("runs/*")), "nothing half-written"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(cli, tmp_path) -> None:
    result = cli("model=ae", "trainer=gpu")
    assert result.code == 1
    assert "no CUDA device" in result.err
    assert not list(tmp_path.rglob("runs/*"))


def test_what_two_optimizers_cannot_have_is_refused(cli) -> None:
    result = cli("model=gan", *SMOKE, "+trainer.gradient_clip_val=1.0")
    assert result.code == 1
    assert "model.clip" in result.err


def test_what_is_fitted_once_refuses_several_processes(cli, tmp_path) -> None:
    result = cli("model=marginal", "trainer=ddp", "trainer.accelerator=cpu")
    assert result.code == 1
    assert "pixel_mixture is fitted once, in one process" in result.err
    assert not list(tmp_path.glob("runs/*/*")), "nothing is left behind"


def test_help_and_configuration_are_printed(cli) -> None:
    shown = cli("--help").out
    for text in ("model ", "wgan_gp", "model/generator ", "resume=", "Examples"):
        assert text in shown
    assert shown.count("as model/first_stage\n") > 3
    assert shown.count("autoregressive continuous coupling") == 1
    config = cli("--cfg", "job", "model=vae").out
    assert "latent_dim" in config


def test_the_zoo_command(cli, tmp_path) -> None:
    listed = cli("list", "*gan*", entry=main)
    assert listed.code == 0
    assert "wgan_gp" in listed.out
    assert "beta_vae" not in listed.out
    assert cli("list", "nothing-like-this", entry=main).code == 1
    info = cli("info", "vae", entry=main)
    assert "latent_dim" in info.out
    assert "likelihood bound" in info.out
    wrong = cli("info", "vea", entry=main)
    assert wrong.code == 1
    assert "Did you mean" in wrong.err
    assert "'vae'" in wrong.err
    assert cli("train", "model=cvae", *SMOKE, entry=main).code == 0
    run = only_run(tmp_path)
    assert cli("sample", str(run), "-n", "9", "--seed", "4", entry=main).code == 0
    assert (run / "samples" / "seed-4.png").is_file()
    assert cli("sample", str(run / "best.ckpt"), "-n", "9", "condition=3", "--out", "three.npy", entry=main).code == 0
    assert np.load("three.npy").shape == (9, 1, 8, 8)
    for arguments, message in {
        ("condition=12",): "class labels from 0 to 9",
        ("condition=two",): "not a class label",
        ("--prompt", "def "): "not text",
        ("--out", "x.gif"): "Use .png",
        ("temperature=1",): "unknown option of vae 'temperature'",
        ("nois=true",): "did you mean 'noise'",
        ("noise=3",): "noise",
        ("noise",): "Write KEY=VALUE",
    }.items():
        refused = cli("sample", str(run), *arguments, entry=main)
        assert refused.code == 1
        assert message in refused.err
    assert "there is no run" in cli("sample", "nowhere", entry=main).err
