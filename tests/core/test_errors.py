"""Callers can tell the kinds of errors apart."""

import ast
import traceback
from pathlib import Path

import pytest
import torch

import zoo
from zoo.config.compose import compose


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda folder: compose("model=gna"), zoo.ConfigError),
        (lambda folder: compose("model.lrr=1"), zoo.ConfigError),
        (lambda folder: zoo.create_model("vae", latent_dim=0), zoo.ConfigError),
        (lambda folder: zoo.create_data("images", path=str(folder / "nowhere")).setup(), zoo.DataError),
        (lambda folder: zoo.create_model("gpt", data="moons"), zoo.DataError),
        (lambda folder: zoo.load(folder / "nowhere"), zoo.CheckpointError),
    ],
    ids=["name", "setting", "bounds", "files", "kind of data", "run"],
)
def test_each_kind_of_mistake_has_its_class(call, kind: type[zoo.ZooError], tmp_path: Path) -> None:
    others = {zoo.ConfigError, zoo.DataError, zoo.CheckpointError, zoo.HardwareError, zoo.TrainingError} - {kind}
    with pytest.raises(kind) as found:
        call(tmp_path)
    assert not isinstance(found.value, tuple(others))


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: zoo.create_model("vaa"),
        lambda folder: zoo.create_model("vae", nope=3),
        lambda folder: zoo.create_model("vae", latent_dim="x"),
        lambda folder: zoo.create_model("vae", data="images"),
        lambda folder: zoo.create_data("digits", nope=1),
        lambda folder: zoo.create_data("images"),
        lambda folder: zoo.fit("vae", "images", folder=folder / "run"),
        lambda folder: zoo.fit("vae", "digits", precision="7-true", folder=folder / "run"),
        lambda folder: zoo.load(folder),
        lambda folder: zoo.evaluate(folder),
        lambda folder: zoo.model_info("nope"),
    ],
    ids=["name", "setting", "type", "missing", "data setting", "path", "fit", "trainer", "load", "evaluate", "info"],
)
def test_an_error_from_python_is_one_traceback(call, tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError) as found:
        call(tmp_path)
    text = "".join(traceback.format_exception(found.value))
    assert text.count("Traceback (most recent call last)") == 1
    assert len(text.splitlines()) < 40


def test_no_error_of_the_zoo_stands_below_its_cause() -> None:
    kinds = {kind.__name__ for kind in (zoo.ZooError, *zoo.ZooError.__subclasses__())}
    chained = []
    for file in Path(zoo.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.cause, ast.Name) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", "")
                chained += [f"{file.name}:{node.lineno}"] if name in kinds else []
    assert not chained


def test_a_damaged_checkpoint_is_told_from_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"nothing")
    with pytest.raises(zoo.CheckpointError):
        zoo.load(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_device_is_about_the_hardware(tmp_path: Path) -> None:
    from zoo.training.trainer import check_hardware

    options = {"accelerator": "gpu", "devices": 1}
    with pytest.raises(zoo.HardwareError, match="no CUDA device"):
        check_hardware(options, zoo.create_model("vae"))
