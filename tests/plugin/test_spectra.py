"""A modality and a family from a separate package go through everything, and touch no built-in file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `zoo_spectra`, as an installation lays it out."""
    folder = tmp_path_factory.mktemp("spectra")
    package, info = folder / "zoo_spectra", folder / "zoo_spectra-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    shutil.copy(Path(__file__).with_name("spectra.py"), package / "__init__.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-spectra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\nspectra = zoo_spectra\n")
    return folder


def run(place: Path, *arguments: str, fails: bool = False) -> str:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "ZOO_CACHE": str(place / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "zoo", *arguments], cwd=place, env=env, capture_output=True, text=True, timeout=250
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    run(place, "train", "model=linear_spectra", "data=ramps", "trainer=smoke", "hydra.run.dir=run")
    return place / "run"


def test_it_is_listed_with_its_abilities(place: Path) -> None:
    said = run(place, "list")
    assert "spectral" in said
    assert "linear_spectra" in said
    (line,) = (line for line in said.splitlines() if "linear_spectra" in line)
    assert "scale" not in line
    assert "latent_dim" in run(place, "info", "linear_spectra")


def test_training_draws_it_in_files_and_on_the_dashboard(trained: Path) -> None:
    for picture in ("000002.png", "000004.png", "final.png", "final-mean.png"):
        assert (trained / "samples" / picture).is_file()
    events = EventAccumulator(str(trained), size_guidance={"images": 0}).Reload()
    assert {"view/samples", "view/mean"} <= set(events.Tags()["images"])
    assert "watch/speed/spectra_per_s" in events.Tags()["scalars"]


def test_a_built_in_model_refuses_it_in_one_sentence(place: Path, trained: Path) -> None:
    said = run(place, "train", "model=gan", "data=ramps", "trainer=smoke", fails=True)
    assert "spectrum" in said
    assert "Traceback" not in said


def test_it_goes_on_where_it_stopped(place: Path, trained: Path) -> None:
    run(
        place,
        "train",
        "model=linear_spectra",
        "data=ramps",
        "trainer=smoke",
        "trainer.max_steps=8",
        "hydra.run.dir=long",
    )
    shutil.copytree(trained, place / "resumed")
    run(place, "train", "resume=resumed", "trainer.max_steps=8")
    states = [torch.load(place / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("long", "resumed")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_it_is_sampled_evaluated_and_exported(place: Path, trained: Path) -> None:
    run(place, "sample", "run", "-n", "5", "--out", "five.npy")
    run(place, "evaluate", "run", "-n", "40")
    metrics = json.loads((trained / "metrics.json").read_text())["best.ckpt"]["metrics"]
    assert {"fall@40_test", "fd_pixels@40_test"} <= metrics.keys()
    run(place, "export", "run", "--format", "torch_export")
    assert list((trained / "export").glob("*.pt2"))
