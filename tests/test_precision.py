"""Which precision is faster is measured once, remembered, and never guessed."""

import json

import pytest
import torch

from tests.contracts.specs import SPECS, examples, make
from zoo import precision
from zoo.checkpoint import read
from zoo.config import compose
from zoo.train import train

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    return tmp_path / "precision.json"


def stub(monkeypatch, single: float, half: float) -> list[int]:
    asked: list[int] = []

    def timed(*_):
        asked.append(1)
        return single, half

    monkeypatch.setattr(precision, "timed", timed)
    return asked


@pytest.mark.parametrize(("half", "chosen"), [(0.5, "bf16-mixed"), (0.97, "32-true"), (2.0, "32-true")])
def test_the_faster_one_is_chosen_and_remembered(cache, monkeypatch, half: float, chosen: str) -> None:
    model, batch = make("ae", "image"), examples(SPECS["image"], 4)
    asked = stub(monkeypatch, 1.0, half)
    assert [precision.fastest(model, batch, CPU) for _ in range(3)] == [chosen] * 3
    assert len(asked) == 1
    (row,) = json.loads(cache.read_text()).values()
    assert row == {"32-true": 1.0, "bf16-mixed": half}


def test_other_layers_other_batches_and_damaged_files_are_measured_anew(cache, monkeypatch) -> None:
    asked = stub(monkeypatch, 1.0, 0.5)
    ae, batch = make("ae", "image"), examples(SPECS["image"], 4)
    precision.fastest(ae, batch, CPU)
    precision.fastest(make("vae", "image"), batch, CPU)
    precision.fastest(ae, examples(SPECS["image"], 5), CPU)
    assert len(asked) == 3
    assert len(json.loads(cache.read_text())) == 3
    cache.write_text('{"a": 1}')
    precision.fastest(ae, batch, CPU)
    assert len(asked) == 4


def test_nothing_is_measured_where_there_is_no_bfloat16(cache, monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    asked = stub(monkeypatch, 1.0, 0.5)
    assert precision.fastest(make("ae", "image"), examples(SPECS["image"], 4), CPU) == "32-true"
    assert not asked
    assert not cache.exists()


@pytest.mark.parametrize(("name", "key"), [("gan", "image"), ("gpt", "tokens")])
def test_measuring_leaves_the_model_and_the_random_numbers_alone(name: str, key: str) -> None:
    model = make(name, key)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    single, half = precision.timed(model, examples(SPECS[key], 4), CPU)
    assert single > 0
    assert half > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_resumed_run_keeps_what_was_found(tmp_path, cache, monkeypatch) -> None:
    stub(monkeypatch, 1.0, 0.5)
    run, what = tmp_path / "run", ["model=ae", "data=moons", "trainer=smoke", "trainer.precision=auto"]
    train(compose(*what), str(run))
    assert read(run / "last.ckpt")["zoo"]["precision"] == "bf16-mixed"
    cache.unlink()
    stub(monkeypatch, 1.0, 2.0)  # it would be found otherwise now
    train(compose(*what, "trainer.max_steps=6", f"resume={run}"), str(run))
    assert read(run / "last.ckpt")["zoo"]["precision"] == "bf16-mixed"
