"""Draft folders: those of killed processes are removed, and those of running ones stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.io import atomic
from zoo.io.atomic import atomic_folder, remove_stale_drafts

WRITER = """
import sys
from pathlib import Path
from zoo.io.atomic import atomic_folder
with atomic_folder(Path(sys.argv[1])) as draft:
    (draft / "part").write_text("1")
    print(draft, flush=True)
    sys.stdin.readline()
"""


def writer(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process in the middle of writing a folder, and its draft."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(atomic.fcntl is None, reason="the system does not have locks of folders")
def test_the_draft_of_a_killed_process_is_removed_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    killed, stale = writer(tmp_path / "a")
    running, live = writer(tmp_path / "a")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert stale.is_dir()
    assert live.is_dir()
    with atomic_folder(tmp_path / "b") as draft:  # of another key: the text has changed since
        assert not stale.exists()
        assert (live / "part").read_text() == "1"
        assert draft.is_dir()
        remove_stale_drafts(tmp_path)
        assert draft.is_dir()
    running.communicate("\n")
    assert running.returncode == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "a" / "part").read_text() == "1"


@pytest.mark.skipif(atomic.fcntl is None, reason="the system does not have locks of folders")
def test_a_draft_that_is_removed_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch) -> None:
    """The one moment in which another process may take it: two folders are made, and the second is written."""
    lock, calls = atomic._lock, []

    def slow(folder: Path, *, wait: bool) -> int | None:
        calls.append(folder)
        if len(calls) == 1:
            remove_stale_drafts(tmp_path)
            assert len(calls) == 2
        return lock(folder, wait=wait)

    monkeypatch.setattr(atomic, "_lock", slow)
    with atomic_folder(tmp_path / "a") as draft:
        (draft / "part").write_text("1")
    assert (tmp_path / "a" / "part").is_file()
    assert calls[0] != draft


def test_files_and_links_and_folders_without_locks_stay(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / ".file.1.draft").write_text("1")
    (tmp_path / ".link.1.draft").symlink_to(target)
    remove_stale_drafts(tmp_path)
    monkeypatch.setattr(atomic, "fcntl", None)
    (tmp_path / ".folder.1.draft").mkdir()
    remove_stale_drafts(tmp_path)
    with atomic_folder(tmp_path / "a"):
        pass
    assert {file.name for file in tmp_path.iterdir()} == {
        "target", ".file.1.draft", ".link.1.draft", ".folder.1.draft", "a"
    }  # fmt: skip


def test_a_failure_leaves_nothing_and_the_first_of_two_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_folder(tmp_path / "a"):
        raise KeyError
    with atomic_folder(tmp_path / "a") as second:
        with atomic_folder(tmp_path / "a") as first:
            (first / "one").touch()
        (second / "two").touch()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["one"]
