"""A prior learns the codes of the pretrained `vqvae-mnist`, without a network."""

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.data.image.test_torchvision import write_mnist
from zoo.data.image import torchvision

NAME = "vqvae-mnist"


def test_a_prior_of_a_pretrained_first_stage_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stage has the published weights before and after a step, and those of the prior change."""
    monkeypatch.setattr(torchvision, "N_VAL", 10)
    monkeypatch.setenv("ZOO_DATA", str(write_mnist(tmp_path)))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    first: Any = zoo.load(NAME)
    models: list[Any] = [
        zoo.fit("gpt", "mnist", first_stage=NAME, max_steps=steps, folder=tmp_path / f"run{steps}", progress=False)
        for steps in (1, 2)
    ]  # fmt: skip
    assert models[0].registered_name == "two_stage"
    for model in models:
        found = model.first_stage.state_dict()
        assert all(torch.equal(found[name], x) for name, x in first.state_dict().items())
        x = model.sample(2, seed=0)
        assert x.shape == (2, 1, 28, 28)
        assert torch.isfinite(x).all()
    priors = [model.prior.state_dict() for model in models]
    assert any(not torch.equal(x, priors[1][name]) for name, x in priors[0].items()), "another step changes the prior"
