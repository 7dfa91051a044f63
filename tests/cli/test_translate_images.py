"""`zoo edit --translate`, `zoo evaluate` and `zoo export` of models of images given images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PIL

import zoo
from tests.contracts.specs import make
from zoo.cli.main import main
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.translated_images import TranslatedImagesSuite
from zoo.interop.export.export import export
from zoo.models.adversarial.cyclegan import CycleGAN


class Domains(DataModule):
    """Grey images of 4x4 pixels, and the same ones brighter by a fifth."""

    registered_name = "brighter"
    held_out_partners = True

    def __init__(self, unpaired: bool = True) -> None:
        super().__init__(batch_size=8, seed=0)
        self.unpaired = unpaired

    @property
    def spec(self) -> DataSpec:
        space = Image(1, 4, 4)
        return DataSpec(space, Unpaired(space) if self.unpaired else space, name="brighter")

    def load(self) -> None:
        y = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.6
        self.train = self.val = self.test = (y + 0.2, y)


class Add(torch.nn.Module):
    """Adds a constant to images in [-1, 1]."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = torch.nn.Parameter(torch.tensor(by))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def measured(forth: float, back: float) -> dict[str, float]:
    data, model = Domains(), make("cyclegan", Domains().spec)
    data.setup()
    model.generators["target"], model.generators["source"] = Add(2 * forth), Add(2 * back)
    found = TranslatedImagesSuite().measure(EvaluationContext(model.eval(), data, EvaluationConfig()))
    assert TranslatedImagesSuite().applies(model, data)
    return {name.partition("@")[0]: metric.value for name, metric in found.items()}


def test_errors_of_known_translations() -> None:
    """Right maps have an error of zero; others have their own, in all three comparisons (negative control)."""
    right = measured(0.2, -0.2)
    assert set(right) == {
        f"{part}_{key}" for part in ("translation", "reverse", "cycle") for key in ("l1", "psnr", "ssim")
    }
    assert all(right[name] == pytest.approx(0, abs=1e-6) for name in right if name.endswith("l1"))
    assert all(right[name] == pytest.approx(1, abs=1e-5) for name in right if name.endswith("ssim"))
    wrong = measured(0.1, -0.2)
    assert wrong["translation_l1"] == pytest.approx(0.1, abs=1e-5)
    assert wrong["translation_psnr"] == pytest.approx(20, abs=1e-3)
    assert wrong["reverse_l1"] == pytest.approx(0, abs=1e-6)
    assert 0.05 < wrong["cycle_l1"] < 0.1, "there and back, clamped at black"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = Domains()
    model = CycleGAN(
        data.spec, translator={"name": "unet", "width": 8}, patch_discriminator={"name": "patchgan", "width": 8}
    )
    zoo.fit(model, data, max_steps=2, folder=folder, progress=False, accelerator="cpu")
    return folder


def test_a_folder_is_translated_to_files_of_equal_names(run: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "own" / "deep").mkdir(parents=True)
    for name in ("own/b.png", "own/deep/a.jpg"):
        PIL.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)).save(tmp_path / name)
    done = cli("edit", str(run), "--image", "own", "--translate", "--out", "new", entry=main)
    assert done.code == 0, done.err
    assert sorted(file.name for file in Path("new").iterdir()) == ["a.png", "b.png"]
    assert "7x9 pixels, scaled to cover 4x4" in done.err
    model = zoo.load(run)
    for option, reverse in (("", False), ("reverse=true", True)):
        done = cli("edit", str(run), "--image", "own", "--translate", "--out", "x.npy", *option.split(), entry=main)
        assert done.code == 0, done.err
        found = np.load("x.npy")
        assert found.shape == (2, 1, 4, 4)
        other = model.translate(torch.zeros(1, 1, 4, 4), reverse=not reverse)
        assert not np.allclose(found[0], other[0].numpy())
    done = cli("edit", str(run), "--image", "own", "--translate", entry=main)
    assert done.code == 0, done.err
    assert Path(done.out.strip()).name == "translate-seed-0.png"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("edit --image own --translate", "a folder without pictures"),
        ("edit --image a.png --translate --super-resolve 2", "two changes at once"),
        ("edit --image a.png", "cannot edit. Add --translate, or use a model that does"),
        ("edit --image a.png --translate revers=true", "did you mean 'reverse'"),
        ("sample", "does not draw samples. Use `zoo edit"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(words: str, message: str, run: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "own").mkdir()
    PIL.new("L", (4, 4)).save(tmp_path / "a.png")
    verb, *rest = words.split()
    done = cli(verb, str(run), *rest, entry=main)
    assert done.code == 1
    assert message in done.err, done.err


def test_an_export_translates_as_the_model_does(run: Path, tmp_path: Path) -> None:
    path = export(run, "torch_export", tmp_path / "model.pt2")
    x = torch.rand(3, 1, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(x), zoo.load(run).translate(x), atol=1e-5, rtol=0)


def test_evaluation_from_the_command_line(cli, tmp_path: Path) -> None:
    for number in range(12):
        for side in ("a", "b"):
            (tmp_path / side).mkdir(exist_ok=True)
            PIL.new("RGB", (8, 8), (number, 20 * number, 0)).save(tmp_path / side / f"{number}.png")
    folders = [f"data.source={tmp_path / 'a'}", f"data.target={tmp_path / 'b'}"]
    small = ["model.translator.width=8", "model.patch_discriminator.width=8", "trainer=smoke"]
    told = cli("model=pix2pix", *folders, *small, "data.batch_size=4", f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    told = cli("evaluate", "run", "--split", "test", entry=main)
    assert told.code == 0, told.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["best.ckpt"]["metrics"]
    assert [name.partition("@")[0] for name in metrics] == ["translation_l1", "translation_psnr", "translation_ssim"]
    assert "0 of the given image" in metrics[next(iter(metrics))]["note"]
