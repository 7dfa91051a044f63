"""bf16-mixed is for devices that multiply bfloat16 themselves; elsewhere training falls back to float32."""

import pytest
import torch

from zoo.callbacks.keeper import Keeper
from zoo.config import compose
from zoo.run import Run
from zoo.train import build_data, build_model, build_trainer


@pytest.mark.parametrize(("able", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_where_the_device_has_it(able: bool, expected: str, tmp_path, monkeypatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr("zoo.train.has_bfloat16", lambda device: asked.append(device) or able)
    cfg, run = compose("model=ae", "data=moons", "trainer=smoke", "trainer.precision=bf16-mixed"), Run(tmp_path)
    data = build_data(cfg)
    model = build_model(cfg, data)
    assert build_trainer(cfg, run, model, data, None, Keeper(run)).precision == expected
    assert asked == [torch.device("cpu")]
