"""Files of `zoo sample`, and devices that are not there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.cli.main import main
from zoo.io.device import find_device
from zoo.viz.files import check_out, write_samples
from zoo.viz.render import ImageRenderer, VectorRenderer

X = torch.rand(2050, 1, 4, 6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ae"
    zoo.fit("ae", torch.rand(60, 1, 8, 8), max_steps=2, folder=folder, progress=False, accelerator="cpu")
    return folder


@pytest.mark.parametrize("name", ["new/deep/x.npy", "new/x.png", "new/x.jpg", "new/X.PNG"])
def test_folders_of_a_file_are_made(name: str, run: Path, cli, tmp_path: Path) -> None:
    result = cli("sample", str(run), "-n", "5", "--out", name, entry=main)
    assert result.code == 0, result.err
    assert result.out == f"{name}\n"
    assert (tmp_path / name).stat().st_size > 0
    if name.endswith("npy"):
        assert np.load(tmp_path / name).shape == (5, 1, 8, 8)


def test_a_folder_gets_one_picture_for_each_sample(run: Path, cli, tmp_path: Path) -> None:
    assert cli("sample", str(run), "-n", "11", "--out", "many", entry=main).code == 0
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [f"{n:02}.png" for n in range(11)]
    assert Image.open(tmp_path / "many" / "00.png").size == (8, 8)
    again = cli("sample", str(run), "-n", "11", "--out", "many", entry=main)
    assert again.code == 1
    assert "--out=many: exists already" in again.err


def test_singles_are_the_samples(tmp_path: Path) -> None:
    write_samples(X[:3], tmp_path / "all", ImageRenderer())
    for number in range(3):
        pixels = np.asarray(Image.open(tmp_path / "all" / f"{number}.png"))
        assert pixels.shape == (4, 6, 3)
        assert np.array_equal(pixels[..., 0], (X[number, 0] * 255).round().byte().numpy())


def test_many_samples_are_written_in_pages(tmp_path: Path) -> None:
    files = write_samples(X, tmp_path / "x.png", ImageRenderer())
    assert [file.name for file in files] == ["x-001.png", "x-002.png", "x-003.png"]
    assert max(Image.open(files[0]).size) < 2000
    assert Image.open(files[2]).size[0] < Image.open(files[0]).size[0], "two samples are left"


@pytest.mark.parametrize("name", ["x.gif", "x.txt", "full", "full/note"])
def test_other_outputs_are_refused_before_sampling(name: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(zoo.ConfigError, match="--out="):
        check_out(tmp_path / name, ImageRenderer())
    assert (tmp_path / "full" / "note").read_bytes() == b""


def test_formats_of_texts_are_named_where_the_caller_writes_them(tmp_path: Path) -> None:
    for renderer in (ImageRenderer(), VectorRenderer()):
        with pytest.raises(zoo.ConfigError, match=r"Use .*\.txt, \.jsonl.*\.npy"):
            check_out(tmp_path / "song.xyz", renderer, (".txt", ".jsonl"))
        check_out(tmp_path / "song.txt", renderer, (".txt", ".jsonl"))
        with pytest.raises(zoo.ConfigError, match="unknown file format"):  # the control
            check_out(tmp_path / "song.txt", renderer)


def test_vectors_have_no_single_pictures(tmp_path: Path) -> None:
    with pytest.raises(zoo.ConfigError, match=r"Use \.png or \.npy"):
        check_out(tmp_path / "new", VectorRenderer())


def test_texts_as_json_lines(cli, tmp_path: Path) -> None:
    model = [
        "model=language_model",
        "model/backbone=lstm",
        "data=text",
        "data/tokenizer=char",
        "data.path=book.txt",
        "data.context=16",
    ]
    (tmp_path / "book.txt").write_text("été, 日本。\n" * 400, encoding="utf-8")
    trained = cli(*model, "trainer=smoke", "data.batch_size=8", "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    arguments = ["--prompt", "ét", "-n", "2", "max_new_tokens=3", "--out", "new/x.jsonl"]
    result = cli("sample", "run", *arguments, entry=main)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in (tmp_path / "new" / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["ét", "ét"]
    assert all(row["text"].startswith("ét") for row in rows)
    assert result.err.count("not in the training text") == 0
    unseen = cli("sample", "run", "--prompt", "éWtW", "max_new_tokens=3", entry=main)
    assert "--prompt=éWtW: not in the training text: W" in unseen.err


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without an accelerator")
@pytest.mark.parametrize("name", ["cuda", "gpu", "cuda:3", "mps", "meta", "", "nope", "xla", "cpu:x", "CUDA"])
@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_a_device_that_is_not_there_is_refused(name: str, verb: str, run: Path, cli) -> None:
    refused = cli(verb, str(run), "--device", name, entry=main)
    assert refused.code == 1
    assert refused.err == f"zoo: device={name}: not a device of this machine. Use cpu.\n"


def test_devices_of_this_machine() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == (
        torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    )


@pytest.mark.parametrize("name", ["/proc/x.npy", "/proc/x/y.png"])
def test_a_path_that_cannot_be_written_is_one_sentence(name: str, run: Path, cli) -> None:
    refused = cli("sample", str(run), "--out", name, entry=main)
    assert refused.code == 1
    assert "Traceback" not in refused.err
    assert "Choose another path" in refused.err
