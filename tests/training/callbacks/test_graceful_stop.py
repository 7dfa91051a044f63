"""A signal during the drawing of samples is answered at once."""

import os
import signal
import time

import pytest
import torch

import zoo
from zoo.models.baselines.gmm import GaussianMixtureModel
from zoo.training.callbacks import sample_logger
from zoo.training.callbacks.graceful_stop import GracefulStop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_drawing_and_saves(number: int, cli, tmp_path, monkeypatch) -> None:
    def draw(*_: object) -> dict:
        os.kill(os.getpid(), number)
        time.sleep(100)
        return {}

    monkeypatch.setattr(sample_logger, "render_samples", draw)
    before, began = signal.getsignal(number), time.monotonic()
    result = cli("model=ae", "trainer=smoke", "hydra.run.dir=run")
    assert result.code == 128 + number
    assert time.monotonic() - began < 90
    assert "A second signal ends at once" in result.err
    assert "resume=run" in result.out
    assert (tmp_path / "run" / "last.ckpt").is_file(), "the checkpoint after the validation is written"
    assert signal.getsignal(number) is before


def test_the_second_signal_has_its_default_effect() -> None:
    stop = GracefulStop(None)  # type: ignore[arg-type]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop.on_train_start(None, None)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.draw(lambda: 1) is None, "nothing is drawn after a signal"
    finally:
        stop.teardown(None, None, "fit")  # type: ignore[arg-type]
    assert {number: signal.getsignal(number) for number in before} == before


def test_drawing_returns_what_was_drawn() -> None:
    assert GracefulStop(None).draw(lambda: 3) == 3  # type: ignore[arg-type]


def test_a_fit_before_the_first_batch_is_kept(cli, tmp_path, monkeypatch) -> None:
    run, fit = tmp_path / "run", GaussianMixtureModel.fit

    def stopped(model, data) -> None:
        fit(model, data)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(GaussianMixtureModel, "fit", stopped)
    told = cli("model=gmm", "data=digits", "trainer=smoke", f"hydra.run.dir={run}")
    assert told.code == 128 + signal.SIGTERM
    assert "after 0 batches, after saving a checkpoint" in told.out
    kept = zoo.load(run / "last.ckpt")
    assert kept.fitted

    def again(model, data) -> None:
        raise AssertionError("fitted twice.")

    monkeypatch.setattr(GaussianMixtureModel, "fit", again)
    assert cli(f"resume={run}").code == 0
    assert torch.equal(zoo.load(run).density.means, kept.density.means)
