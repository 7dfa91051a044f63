"""Two processes and one folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.core.errors import ZooError
from zoo.runs.folder import RunFolder

OWNER = (".claimed", ".lock")  # who trains here


def holder(run: RunFolder, resume: bool) -> int:
    """A process that locks the folder, then creates a file."""
    child = os.fork()
    if not child:
        try:
            run.acquire_lock(resume=resume)
            (run.folder / "ready").touch()
            time.sleep(60)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 30
    while not (run.folder / "ready").exists():
        assert time.monotonic() < deadline, "the other process did not get the folder"
        time.sleep(0.01)
    return child


@pytest.mark.parametrize("resume", [False, True])
def test_a_live_run_is_refused_until_its_process_is_gone(resume: bool, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "mine")
    child = holder(RunFolder(tmp_path / "mine"), resume)
    try:
        with pytest.raises(ZooError, match=f"is being trained by process {child} on"):
            run.acquire_lock(resume=True)
        with pytest.raises(ZooError, match=f"is being trained by process {child} on"):
            run.acquire_lock()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    run.acquire_lock(resume=True)  # a lock dies with its process, however it ends
    with pytest.raises(ZooError, match="is being trained by"):
        RunFolder(tmp_path / "mine").acquire_lock(resume=True)
    run.release_lock()
    RunFolder(tmp_path / "mine").acquire_lock(resume=True)


def test_a_process_that_died_before_its_run_began_leaves_the_folder_free(tmp_path: Path) -> None:
    child = holder(RunFolder(tmp_path / "mine"), resume=False)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    run = RunFolder(tmp_path / "mine")
    run.acquire_lock()
    run.release_lock()
    run.config_file.touch()  # negative control: files of a run
    with pytest.raises(ZooError, match="belongs to another run"):
        run.acquire_lock()
    assert run.lock is None


def test_where_locks_do_not_work_a_claim_refuses_the_second_process(tmp_path: Path, monkeypatch) -> None:
    def unsupported(self) -> None:
        raise NotImplementedError

    monkeypatch.setattr("zoo.runs.folder.FileLock.acquire", unsupported)
    RunFolder(tmp_path / "mine").acquire_lock()
    with pytest.raises(ZooError, match=f"was taken by process {os.getpid()} on .* remove .*claimed"):
        RunFolder(tmp_path / "mine").acquire_lock()


def test_what_may_change_on_resuming_and_what_may_not(cli, tmp_path: Path) -> None:
    smoke = ["trainer=smoke", "trainer.max_steps=4", "data.batch_size=16"]
    assert cli("model=ae", *smoke, "hydra.run.dir=mine").code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file() and p.name not in OWNER}
    for override, named in {
        "seed=1": "data.seed, seed differs",
        "data.batch_size=8": "data.batch_size differs",
        "data=moons": "data.name",
        "model.optimizer.lr=0.5": "cannot change the model, but model.optimizer.lr differs",
        "model=vae": "model.name",
        "trainer.devices=2": "trainer.devices differs",
        "trainer.max_steps=3": "has had 4 batches",
    }.items():
        told = cli("resume=mine", override)
        assert told.code == 1, override
        assert named in told.err
        assert len(told.err.strip().splitlines()) == 1
    after = {p: p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file() and p.name not in OWNER}
    assert after.keys() >= before.keys()
    assert {p: after[p] for p in before} == before, "a refusal changes nothing"
    told = cli("resume=mine", "trainer.max_steps=6", "trainer.checkpoint_every=1", "trainer.log_every_n_steps=2")
    assert told.code == 0, told.err
    assert "from 4 batches, last.ckpt" in told.out
    told = cli("resume=mine", "trainer.max_steps=8")  # the rest of it is remembered
    assert told.code == 0, told.err
    written = (tmp_path / "mine" / "config.yaml").read_text()
    assert "checkpoint_every: 1" in written
    assert written.count("# command: ") == 3
    assert written.count("# torch: ") == 1


@pytest.mark.parametrize("place", ["zoo.cli.train.install", "zoo.training.train.build_data"])
def test_ctrl_c_before_training_leaves_nothing(place: str, cli, tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    told = cli("model=ae", "trainer=smoke")
    assert told.code == 130
    assert told.err == "zoo: stopped.\n"
    assert not list(tmp_path.rglob("runs/*"))


def test_a_run_folder_needs_nothing_that_windows_lacks() -> None:
    """A process in which `import fcntl` fails, as there, can still import the module and read a run."""
    code = "import sys; sys.modules['fcntl'] = None; sys.modules['_fcntl'] = None; import zoo.runs.folder"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
