"""Run folders: odd names, refusals that leave the user's files alone, and jobs that start together."""

import datetime
from pathlib import Path

import pytest

import zoo
from tests.contracts.specs import slow
from zoo.io.folders import make_folder, make_new_folder, remove_empty

SMOKE = ["model=vae", "trainer=smoke", "data.batch_size=16"]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


WRONG = "trainer.max_steps=0"


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        *((place, WRONG) for place in ("a/b/e1", "a/b", "a", ".", "new/one", "a/b/samples")),
        *(("a/b/e1", wrong) for wrong in ("+nope=1", "hydra.job.chdir=true", "data.batch_size=5000")),
    ],
)
def test_a_refused_run_removes_what_it_made_and_nothing_else(place: str, wrong: str, cli, tmp_path) -> None:
    (tmp_path / "a" / "b" / "samples").mkdir(parents=True)
    (tmp_path / "a" / "train.log").write_text("of another program")
    before = tree(tmp_path)
    assert cli(*SMOKE, wrong, f"hydra.run.dir={place}").code == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml", "best.ckpt", "last.ckpt"])
def test_a_folder_with_files_of_a_run_is_never_overwritten(name: str, cli, tmp_path) -> None:
    (tmp_path / name).write_text("mine")
    refused = cli(*SMOKE, "hydra.run.dir=.")
    assert refused.code == 1
    assert "belongs to another run" in refused.err
    assert tree(tmp_path) == {name}


@pytest.mark.parametrize("name", ["写真 (1), it's #1", "1e5", *slow("lr=0.1")])
def test_a_run_in_an_oddly_named_folder_is_resumed_and_used(name: str, cli, tmp_path) -> None:
    assert cli(*SMOKE, f"hydra.run.dir={name}").code == 0
    resumed = cli(f"resume={name}", "trainer.max_steps=6")
    assert resumed.code == 0, resumed.err
    used = cli(*SMOKE, f"init_from={name}")
    assert used.code == 0, used.err
    assert zoo.load(tmp_path / name).registered_name == "vae"


def test_jobs_that_start_in_the_same_second_get_folders_of_their_own(cli, tmp_path, monkeypatch) -> None:
    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None) -> datetime.datetime:
            return datetime.datetime(2026, 11, 22, 10)

    monkeypatch.setattr("hydra.core.utils.datetime", Frozen)
    for words in ([], [], ["-m"], ["-m"]):
        result = cli(*words, *SMOKE)
        assert result.code == 0, result.err
    names = sorted(path.name for path in (tmp_path / "runs" / "2026-11-22").iterdir())
    assert names == ["10-00-00-sweep", "10-00-00-sweep-2", "10-00-00-vae-digits", "10-00-00-vae-digits-2"]


def test_new_folders_are_counted(tmp_path: Path) -> None:
    names = [make_new_folder(tmp_path / "a" / "run").name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]


def test_only_empty_folders_that_were_made_here_are_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    make_folder(tmp_path / "mine" / "a" / "b")
    (tmp_path / "mine" / "a" / "note").touch()
    remove_empty(tmp_path / "mine" / "a" / "b")
    assert tree(tmp_path) == {"mine", "mine/a", "mine/a/note"}
    (tmp_path / "mine" / "a" / "note").unlink()
    remove_empty(tmp_path / "mine" / "a" / "b")
    assert tree(tmp_path) == {"mine"}
    remove_empty(tmp_path / "mine")
    assert tree(tmp_path) == {"mine"}


@pytest.mark.parametrize("words", [["seed=1,2", "-m"], *slow(["-m", "seed=1,2"])])
def test_flags_may_follow_overrides(words: list[str], cli, tmp_path) -> None:
    result = cli(*SMOKE, *words)
    assert result.code == 0, result.err
    assert len(list(tmp_path.glob("runs/*/*-sweep/*/best.ckpt"))) == 2


@pytest.mark.parametrize(
    "flag", [["--shell-completion", "bash"], ["-sc", "install=bash"], ["--experimental-rerun", "x"]]
)
def test_unsupported_flags_are_refused_in_one_line(flag: list[str], cli) -> None:
    refused = cli(*flag)
    assert refused.code == 1
    assert "not supported" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_the_saved_command_is_one_line_that_a_shell_reads(cli, tmp_path) -> None:
    assert cli(*SMOKE, "hydra.run.dir=a\nb: c").code == 0
    (file,) = tmp_path.rglob("config.yaml")
    (line,) = [line for line in file.read_text().splitlines() if line.startswith("# command: ")]
    assert r"'hydra.run.dir=a\nb: c'" in line
