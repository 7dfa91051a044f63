"""Sentences about resumed runs, and the command that advice names."""

from pathlib import Path

import pytest

from zoo.config.compose import compose, to_plain
from zoo.config.flatten import flatten
from zoo.core.command import train_command
from zoo.training.resume import ResumePoint, defaults, describe, differences


def test_a_finished_run_and_a_new_length_are_told() -> None:
    start = ResumePoint(Path("run/last.ckpt"), 40, None)
    assert describe(start, 100, 100) == {"resumed": "from 40 batches, last.ckpt"}
    finished = describe(ResumePoint(Path("run/last.ckpt"), 100, None), 100, 100)
    assert finished["finished"] == "all 100 batches are done. Set trainer.max_steps=200 to train for longer."
    longer = describe(start, 100, 300)
    assert longer["length"] == "300 batches instead of 100. Schedules of learning rates follow the new length."
    assert "no checkpoint was written" in describe(None, 100, 100)["resumed"]


def test_a_sweep_is_refused_with_its_runs(cli, tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / "sweep" / f"{number}-vae").mkdir(parents=True)
        (tmp_path / "sweep" / f"{number}-vae" / "overrides.yaml").write_text("- model=vae\n")
    told = cli("resume=sweep")
    assert told.code == 1
    assert "resume=sweep: a sweep. Resume its runs one by one: resume=sweep/0-vae" in told.err


@pytest.mark.parametrize(
    ("script", "command"), [("/usr/bin/zoo", "zoo train"), ("train.py", "python train.py"), ("zoo.exe", "zoo train")]
)
def test_advice_names_the_command_in_use(script: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [script, "model=vae"])
    assert train_command("model=gan") == f"{command} model=gan"


def test_a_run_of_an_older_edition_has_the_defaults_of_newer_settings(cli, tmp_path: Path) -> None:
    """A setting that its configuration does not name may have its default, and nothing else."""
    train = ("model=gan", "data=digits", "trainer=smoke", "hydra.run.dir=run")
    assert cli(*train).code == 0
    config = tmp_path / "run" / "config.yaml"
    whole = config.read_text()
    for line in ("  seed: 0\n", "    cutout: 0.5\n"):  # of the data, and of a component
        assert f"\n{line}" in whole
        config.write_text(whole.replace(f"\n{line}", "\n"))
        told = cli("resume=run", "trainer.max_steps=5")
        assert told.code == 0, told.err
    config.write_text(whole.replace("\n  batch_size: 128\n", "\n"))
    told = cli("resume=run", "trainer.max_steps=6")
    assert told.code == 1
    assert "data.batch_size differs" in told.err


def test_only_missing_settings_may_be_new() -> None:
    now = to_plain(compose("model=gpt", "model.backbone.d_model=32", "data=stdlib"))
    default = flatten(defaults("model", now["model"]) | defaults("data", now["data"]))
    flat = flatten({key: now[key] for key in ("model", "data")})
    assert default["data.seed"] == 0
    assert {key for key in default if key.startswith("model.backbone.")} > {"model.backbone.n_layers"}
    for key in ("data.seed", "model.backbone.qk_norm", "model.backbone.d_model"):
        before = {name: value for name, value in flat.items() if name != key}
        new = key != "model.backbone.d_model"
        assert differences(before, flat, default) == (set() if new else {key})
        assert differences(flat, before, default) == {key}, "a setting that is gone"
        assert differences(flat | {key: "other"}, flat, default) == {key}
