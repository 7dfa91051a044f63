"""bf16-mixed is for devices that multiply bfloat16 themselves; elsewhere training falls back to float32."""

import pytest
import torch

from zoo.config.compose import compose
from zoo.runs.folder import RunFolder
from zoo.training.context import TrainingContext
from zoo.training.train import build_data, build_model
from zoo.training.trainer import build_trainer


@pytest.mark.parametrize(("able", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_where_the_device_has_it(able: bool, expected: str, tmp_path, monkeypatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr("zoo.training.trainer.has_bfloat16", lambda device: asked.append(device) or able)
    cfg, run = compose("model=ae", "data=moons", "trainer=smoke", "trainer.precision=bf16-mixed"), RunFolder(tmp_path)
    data = build_data(cfg)
    model = build_model(cfg, data)
    assert build_trainer(TrainingContext(cfg, run, model, data)).precision == expected
    assert asked == [torch.device("cpu")]
