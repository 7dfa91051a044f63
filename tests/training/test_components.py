"""Callbacks, loggers, finders and profilers are chosen by configuration."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as L

import zoo
from zoo.config.compose import compose
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.runs.folder import RunFolder
from zoo.training.components import build_callbacks, build_loggers, registered_callbacks
from zoo.training.context import TrainingContext
from zoo.training.train import build_model


def context(folder: Path, *overrides: str) -> TrainingContext:
    cfg = compose("trainer=smoke", *overrides)
    data = zoo.create_data(cfg.data.name, batch_size=cfg.data.batch_size)
    return TrainingContext(cfg, RunFolder(folder), build_model(cfg, data), data)


def names(callbacks: list[L.Callback]) -> list[str]:
    return [type(c).__name__ for c in callbacks]


def test_a_callback_is_used_where_it_applies(tmp_path: Path) -> None:
    everywhere = {"SampleLogger", "TensorBoardLayout"}
    for model, others in {"gan": {"CollapseMonitor"}, "vae": {"CollapseMonitor"}, "image_gpt": set()}.items():
        assert set(names(registered_callbacks(context(tmp_path, f"model={model}")))) == everywhere | others


def test_callbacks_are_chosen_by_name_with_settings(tmp_path: Path) -> None:
    chosen = "callbacks=[early_stopping,lr_monitor]"
    built = build_callbacks(context(tmp_path, "model=vae", chosen, "callbacks.early_stopping.patience=7"))
    stopping = next(c for c in built if isinstance(c, L.callbacks.EarlyStopping))
    assert (stopping.patience, stopping.monitor) == (7, "val/loss")
    assert any(isinstance(c, L.callbacks.LearningRateMonitor) for c in built)
    assert names(built)[-1] == "Checkpointer", "the state of all others is saved"


def test_one_callback_needs_no_brackets_and_an_automatic_one_can_be_removed(tmp_path: Path) -> None:
    built = names(build_callbacks(context(tmp_path, "model=vae", "callbacks=timer", "+callbacks.sample_logger=null")))
    assert "Timer" in built
    assert "SampleLogger" not in built


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks=early_stoping", "did you mean 'early_stopping'"),
        ("+callbacks.early_stopping.patienc=3", "patienc"),
    ],
)
def test_unknown_names_are_refused(override: str, message: str, cli) -> None:
    refused = cli("model=vae", "trainer=smoke", override)
    assert refused.code == 1
    assert message in refused.err
    assert "Traceback" not in refused.err


def test_a_value_out_of_bounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"callbacks.early_stopping.patience=0 is out of range"):
        build_callbacks(context(tmp_path, "callbacks=early_stopping", "callbacks.early_stopping.patience=0"))


def test_a_callback_of_a_plugin_is_chosen_and_applied(tmp_path: Path) -> None:
    with registry.isolated():

        @zoo.register("callback", "counter")
        class Counter(L.Callback):
            def __init__(self, *, start: int = 0) -> None:
                self.start = start

        @zoo.register("callback", "everywhere")
        class Everywhere(L.Callback):
            @staticmethod
            def applies(model, data) -> bool:
                return True

        built = registered_callbacks(context(tmp_path, "model=vae", "callbacks=[counter]", "callbacks.counter.start=3"))
    assert [c.start for c in built if isinstance(c, Counter)] == [3]
    assert any(isinstance(c, Everywhere) for c in built)


def test_early_stopping_ends_a_training(cli) -> None:
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1e9"]
    done = cli("model=vae", "trainer=smoke", "trainer.max_steps=40", *stop)
    assert done.code == 0, done.err
    (table,) = Path("runs").glob("*/*/metrics.csv")
    assert max(int(row["step"]) for row in csv.DictReader(table.open())) == 3, "the second validation is after batch 4"


def test_a_missing_tracker_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_):
        raise ModuleNotFoundError("no wandb.")

    monkeypatch.setattr("zoo.training.loggers.WandbLogger", missing)
    with pytest.raises(ConfigError, match=r"logger=wandb: its package is not installed\. Run `pip install wandb`"):
        build_loggers(context(tmp_path, "model=vae", "logger=wandb"))


def test_trackers_get_the_configuration_beside_tensorboard_and_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake(L.loggers.CSVLogger):
        def __init__(self, experiment_name: str, run_name: str) -> None:
            super().__init__(str(tmp_path), name=experiment_name)
            self.run_name, self.given = run_name, {}

        def log_hyperparams(self, params) -> None:
            self.given = params

    monkeypatch.setattr("zoo.training.loggers.MLFlowLogger", Fake)
    board, table, tracker = build_loggers(context(tmp_path / "run", "model=vae", "logger=[mlflow]"))
    assert (type(board).__name__, type(table).__name__) == ("RunTensorBoardLogger", "RunCSVLogger")
    assert tracker.run_name == "run"
    assert tracker.given["model.name"] == "vae"


def test_a_learning_rate_is_suggested_and_nothing_is_written(cli) -> None:
    found = cli("model=vae", "trainer=cpu", "tune=lr")
    assert found.code == 0, found.err
    assert "learning rate" in found.out
    assert not list(Path().glob("runs/*/*"))


def test_a_learning_rate_of_two_optimizers_is_refused(cli) -> None:
    refused = cli("model=gan", "trainer=cpu", "tune=lr")
    assert refused.code == 1
    assert "tune=lr: gan has several optimizers" in refused.err
    assert not list(Path().glob("runs/*/*"))


def test_a_batch_size_is_suggested_for_two_optimizers_too(cli) -> None:
    found = cli("model=gan", "trainer=cpu", "tune=batch_size", "data.batch_size=256")
    assert found.code == 0, found.err
    assert "samples/s" in found.out
    assert "data.batch_size=" in found.out


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_a_profile_is_written_into_the_run(model: str, cli) -> None:
    done = cli(f"model={model}", "trainer=smoke", "profiler=simple")
    assert done.code == 0, done.err
    (profile,) = Path("runs").glob("*/*/fit-profile.txt")
    assert "training_step" in profile.read_text()


@pytest.mark.parametrize("override", ["tune=lrr", "profiler=simpel"])
def test_unknown_finders_and_profilers_are_refused(override: str, cli) -> None:
    refused = cli("model=vae", "trainer=smoke", override)
    assert refused.code == 1
    assert "did you mean" in refused.err
