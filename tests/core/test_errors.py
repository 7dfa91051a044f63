"""Callers can tell the kinds of errors apart."""

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
