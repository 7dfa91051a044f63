"""Any model on any data that fits, from the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.contracts.specs import slow

SMOKE = ["trainer=smoke", "trainer.val_check_interval=4", "data.batch_size=8"]
SMALL = [f"model.backbone.{size}" for size in ("d_model=16", "n_layers=1", "n_heads=2")]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty pictures of different sizes and modes, in two classes."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    for number in range(40):
        height, width = rng.integers(20, 40, 2)
        mode = ("RGB", "L")[number % 2]
        shape = (height, width, 3) if mode == "RGB" else (height, width)
        place = folder / ("cats", "dogs")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8), mode).save(place)
    return folder


@pytest.mark.parametrize("model", ["dcgan", "cgan", "vae", "ae", *slow("gan", "cvae")])
def test_a_folder_of_pictures(model: str, pictures: Path, cli) -> None:
    result = cli(f"model={model}", "data=images", f"data.path={pictures}", "data.size=[16,24]", *SMOKE)
    assert result.code == 0, result.err
    assert "image 3x16x24, 2 classes" in result.out


@pytest.mark.parametrize("model", ["gan", "wgan_gp", "vae", "ae", *slow("r3gan", "iwae", "denoising_ae")])
@pytest.mark.parametrize("data", ["grid25"])
def test_points_in_the_plane(model: str, data: str, cli, tmp_path: Path) -> None:
    result = cli(f"model={model}", f"data={data}", *SMOKE)
    assert result.code == 0, result.err
    assert list(tmp_path.glob("runs/*/*/samples/final.png"))


@pytest.mark.parametrize("data", ["ring8", "rings", "moons", "checkerboard"])
def test_every_density(data: str, cli) -> None:
    assert cli("model=vae", f"data={data}", *SMOKE).code == 0


@pytest.mark.parametrize("model", ["gan", "image_gpt", *slow("vae")])
def test_mnist(model: str, cli, zoo_data: str, tmp_path: Path) -> None:
    small = SMALL if model == "image_gpt" else []
    result = cli(f"model={model}", "data=mnist", f"data.path={zoo_data}", "data.binarize=dynamic", *small, *SMOKE)
    assert result.code == 0, result.err
    (run,) = tmp_path.glob("runs/*/*-mnist")
    assert zoo.load(run).spec.image.levels == 2


def test_a_language_model_on_pixels_is_refused_with_the_name_of_the_model_for_them(cli) -> None:
    result = cli("model=gpt", "data=digits", *SMALL, *SMOKE)
    assert result.code == 1
    assert "Take model=image_gpt" in result.err
    assert len(result.err.strip().splitlines()) == 1


BACKBONES = ("transformer", "rnn", "lstm", "gru", "mamba2")
UNDER = [("language_model", name) for name in BACKBONES] + [("pixel_transformer", name) for name in BACKBONES[:2]]


@pytest.mark.parametrize(
    ("model", "backbone"), [*UNDER, *slow(*(("pixel_transformer", name) for name in BACKBONES[2:]))]
)
def test_every_backbone_under_every_objective(model: str, backbone: str, cli, tmp_path: Path) -> None:
    small = ["model.backbone.d_model=16", "model.backbone.n_layers=1"]
    if model == "language_model":  # reading the standard library takes seconds
        small += ["data=text", "data.path=notes", "data/tokenizer=byte", "data.context=16"]
        notes(tmp_path)
    result = cli(f"model={model}", f"model/backbone={backbone}", *small, *SMOKE)
    assert result.code == 0, result.err
    (run,) = tmp_path.glob(f"runs/*/*-{model}-*")
    assert zoo.load(run).hparams["backbone"]["name"] == backbone


def notes(folder: Path) -> None:
    """Three short texts."""
    (folder / "notes").mkdir()
    for number in range(3):
        (folder / "notes" / f"{number}.txt").write_text(f"Note {number}: the quick brown fox. Größe ≠ size.\n" * 60)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "word", "bpe"])
def test_text_of_ones_own(tokenizer: str, cli, tmp_path: Path) -> None:
    notes(tmp_path)
    options = ["data=text", "data.path=notes", f"data/tokenizer={tokenizer}", "data.context=16"]
    result = cli("model=gpt", *options, *SMALL, *SMOKE)
    assert result.code == 0, result.err
    (run,) = tmp_path.glob("runs/*/*-text")
    (done,) = zoo.load(run).generate(["Note ☃: "], max_new_tokens=5, seed=0)  # a character that it has never seen
    assert done.finish_reason in ("length", "eos")
