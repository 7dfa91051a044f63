"""Sentences about resumed runs, and the command that advice names."""

from pathlib import Path

import pytest

from zoo.core.command import train_command
from zoo.training.resume import ResumePoint, describe


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
