"""`zoo edit`, from pictures to pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.contracts.specs import SPECS, make
from zoo.cli.edit_images import find_method
from zoo.cli.main import main
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.data.in_memory import as_datamodule
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.byte import Byte

TEXT = zoo.DataSpec(Tokens(16, Byte().vocab_size, dumps(Byte())), name="text")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a diffusion model of classes, and of an autoencoder."""
    folder = tmp_path_factory.mktemp("runs")
    given = {"max_steps": 2, "progress": False, "accelerator": "cpu"}
    x = (torch.rand(60, 1, 8, 8), torch.arange(60) % 3)
    data = as_datamodule(x, 8, 0)
    data.setup()
    small = {"denoiser": {"name": "mlp", "width": 16, "depth": 1}, "sampler": {"name": "heun", "steps": 2}}
    zoo.fit(zoo.create_model("diffusion", data=data.spec, **small), data, folder=folder / "diffusion", **given)
    zoo.fit("ae", x[0], folder=folder / "ae", **given)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures of 20x30 pixels, a mask of their lower half, and files that do not fit."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[::-1]).convert("RGB").save(tmp_path / "b.jpg")
    mask = Image.new("L", (20, 30))
    mask.save(tmp_path / "black.png")
    mask.paste(255, (0, 15, 20, 30))
    mask.save(tmp_path / "mask.png")
    mask.resize((8, 8)).save(tmp_path / "small.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    return tmp_path


EDITS = {
    "--strength 0.5": (2, 1 + 3),
    "steps=3 condition=2 guidance=2 invert=true source=0": (2, 1 + 3),
    "--mask mask.png steps=2": (2, 2 + 3),
    "--mask mask.png steps=2 rounds=2": (2, 2 + 3),
    "--super-resolve 4 steps=2 condition=1": (2, 1 + 3),
    "--interpolate 5": (1, 5),
}


@pytest.mark.parametrize("words", EDITS)
def test_every_change_writes_its_pictures(words: str, runs: Path, pictures: Path, cli) -> None:
    given = ["edit", str(runs / "diffusion"), "--image", "a.png", "--image", "b.jpg", "-n", "3", *words.split()]
    done = cli(*given, "--out", "x.png", entry=main)
    assert done.code == 0, done.err
    assert "a.png: 20x30 pixels, scaled to cover" in done.err
    rows, columns = EDITS[words]
    assert Image.open("x.png").size == (columns * 52 + 4, rows * 52 + 4)
    assert cli(*given, "--out", "x.npy", entry=main).code == 0
    results = np.load("x.npy")
    assert results.shape == (5 if "interpolate" in words else 6, 1, 8, 8)
    assert 0 <= results.min() <= results.max() <= 1
    assert cli(*given, "--out", "y.npy", "--seed", "0", entry=main).code == 0
    assert np.array_equal(results, np.load("y.npy")), "equal seeds give equal results"


def test_only_the_white_part_of_the_mask_changes(runs: Path, pictures: Path, cli) -> None:
    plain = Image.new("L", (8, 8), 64)
    plain.save("plain.png")
    mask = Image.new("L", (8, 8))
    mask.paste(255, (0, 4, 8, 8))
    mask.save("mask.png")
    run = str(runs / "diffusion")
    done = cli("edit", run, "--image", "plain.png", "--mask", "mask.png", "--out", "new", "steps=2", entry=main)
    assert done.code == 0, done.err
    assert done.err == "", "nothing is scaled"
    found = np.stack([np.asarray(Image.open(f"new/{n}.png"))[..., 0] for n in range(4)])
    assert (found[:, :4] == 64).all()
    assert (found[:, 4:] != 64).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "kind", "remedy"),
    [
        ("gpt", "text", 'Continue a text by `zoo sample RUN --prompt "TEXT"`.'),
        ("bert", "tokens", 'Fill in masks by `zoo sample RUN --prompt "a [MASK] text"`.'),
        ("video_diffusion", "video", "Continue videos by --continue K."),
        ("table_autoregressive", "table", "Fill in rows by --rows FILE."),
        ("var", "series", "Continue series by `zoo forecast`."),
        ("realnvp", "vector", "Use a model of images."),
    ],
)
def test_a_model_of_other_data_gets_advice_that_fits(name: str, kind: str, remedy: str) -> None:
    with pytest.raises(ZooError) as refused:
        find_method(make(name, (SPECS | {"text": TEXT})[kind]), "inpaint")
    assert str(refused.value).endswith(remedy)


def test_a_model_that_encodes_interpolates_and_does_no_more(runs: Path, pictures: Path, cli) -> None:
    ae = str(runs / "ae")
    done = cli("edit", ae, "--image", "a.png", "--image", "b.jpg", "--interpolate", "4", entry=main)
    assert done.code == 0, done.err
    assert Path(done.out.strip()).name == "interpolate-seed-0.png"
    done = cli("edit", ae, "--image", "a.png", entry=main)
    assert done.code == 1
    assert "cannot edit" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image a.png --mask small.png", "8x8 pixels, but a.png has 20x30. Make both equal"),
        ("--image a.png --mask black.png", "no white pixels"),
        ("--image a.png --mask mask.png --super-resolve 2", "two changes at once"),
        ("--image a.png --super-resolve 3", "does not divide the 8x8 pixels"),
        ("--image a.png --interpolate 3", "between 1 pictures. Give --image twice"),
        ("--image a.png --colorize", "cannot add colour"),
        ("--image a.png strenth=.5", "did you mean 'strength'"),
        ("--image a.png --strength 1.5", "strength=1.5 is out of range"),
        ("--image a.png --mask mask.png --strength .5", "unknown option"),
        ("--image a.png guidance=3", "needs a class"),
        ("--image a.png condition=7", "class labels from 0 to 2"),
        ("--image a.png --out x.gif", "unknown file format"),
        ("--image damaged.png", "--image=damaged.png: "),
        ("--image none.png", "no such file"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(
    words: str, message: str, runs: Path, pictures: Path, cli, recwarn
) -> None:
    done = cli("edit", str(runs / "diffusion"), *words.split(), entry=main)
    assert done.code == 1
    assert message in done.err, done.err
    assert len([line for line in done.err.splitlines() if "scaled to cover" not in line]) == 1
    assert not list(pictures.glob("*samples*"))
