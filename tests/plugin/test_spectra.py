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


TRAIN = ["train", "model=linear_spectra", "data=ramps", "trainer=smoke"]
COMMANDS = {  # name -> arguments of `zoo`, in order
    "list": ["list"],
    "info": ["info", "linear_spectra"],
    "train": [*TRAIN, "hydra.run.dir=run"],
    "refuse": ["train", "model=gan", "data=ramps", "trainer=smoke"],
    "train longer": [*TRAIN, "trainer.max_steps=8", "hydra.run.dir=long"],
    "train again": [*TRAIN, "hydra.run.dir=resumed"],
    "resume": ["train", "resume=resumed", "trainer.max_steps=8"],
    "sample": ["sample", "run", "-n", "5", "--out", "five.npy"],
    "evaluate": ["evaluate", "run", "-n", "40"],
    "export": ["export", "run", "--format", "torch_export"],
}
SCRIPT = """
import contextlib, io, json, sys
from zoo.cli.main import main
done = {}
for name, words in json.loads(sys.argv.pop()).items():
    said, status = io.StringIO(), 0
    sys.argv = ["zoo", *words]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
    done[name] = status, said.getvalue()
with open("done.json", "w") as file:
    json.dump(done, file)
"""


@pytest.fixture(scope="module")
def said(place: Path) -> dict[str, str]:
    """Output of each command, all in one process where the package is installed; `refuse` alone fails."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "ZOO_CACHE": str(place / "cache")}
    command = [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)]
    ended = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    done = json.loads((place / "done.json").read_text())
    for name, (status, text) in done.items():
        assert (status != 0) == (name == "refuse"), text
    return {name: text for name, (_, text) in done.items()}


def test_it_is_listed_with_its_abilities(said: dict[str, str]) -> None:
    assert "spectral" in said["list"]
    assert "linear_spectra" in said["list"]
    (line,) = (line for line in said["list"].splitlines() if "linear_spectra" in line)
    assert "scale" not in line
    assert "latent_dim" in said["info"]


def test_training_draws_it_in_files_and_on_the_dashboard(said: dict[str, str], place: Path) -> None:
    for picture in ("000002.png", "000004.png", "final.png", "final-mean.png"):
        assert (place / "run" / "samples" / picture).is_file()
    events = EventAccumulator(str(place / "run"), size_guidance={"images": 0}).Reload()
    assert {"view/samples", "view/mean"} <= set(events.Tags()["images"])
    assert "watch/speed/spectra_per_s" in events.Tags()["scalars"]


def test_a_built_in_model_refuses_it_in_one_sentence(said: dict[str, str]) -> None:
    assert "spectrum" in said["refuse"]
    assert "Traceback" not in said["refuse"]


def test_it_goes_on_where_it_stopped(said: dict[str, str], place: Path) -> None:
    states = [torch.load(place / name / "last.ckpt", weights_only=True) for name in ("run", "long", "resumed")]
    assert [state["global_step"] for state in states] == [4, 8, 8]
    short, straight, resumed = (state["state_dict"] for state in states)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert any(not torch.equal(straight[key], short[key]) for key in straight)


def test_it_is_sampled_evaluated_and_exported(said: dict[str, str], place: Path) -> None:
    assert (place / "five.npy").is_file()
    metrics = json.loads((place / "run" / "metrics.json").read_text())["best.ckpt"]["metrics"]
    assert {"fall@40_test", "fd_pixels@40_test"} <= metrics.keys()
    assert list((place / "run" / "export").glob("*.pt2"))
