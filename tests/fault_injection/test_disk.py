"""Checkpoints that were cut short or altered, and disks that are full."""

import io
import os
import random
import shutil
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import zoo
from tests.fault_injection.equal import unequal
from zoo.cli.main import main
from zoo.io.checkpoint_file import HashedCheckpointIO, integrity_error
from zoo.runs.checkpoint import latest_intact
from zoo.runs.folder import RunFolder

RUN = ["model=ae", "trainer=smoke", "trainer.max_steps=6", "trainer.checkpoint_every=1", "data.batch_size=16"]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "sealed.ckpt"
    HashedCheckpointIO().save_checkpoint({"a": torch.arange(300.0), "b": [1, "two"]}, path)
    return path


def test_a_sealed_checkpoint_is_an_ordinary_archive(sealed: Path) -> None:
    assert integrity_error(sealed) is None
    assert torch.load(sealed, weights_only=True)["b"] == [1, "two"]
    assert zipfile.ZipFile(sealed).comment.startswith(b"zoo sha256 ")
    assert zipfile.ZipFile(sealed).testzip() is None
    assert [p.name for p in sealed.parent.iterdir()] == [sealed.name], "no drafts left"


def test_every_altered_bit_and_every_cut_is_seen(sealed: Path) -> None:
    """All of the last 200 bytes, where the digest is, and some of the rest."""
    whole, chance = sealed.read_bytes(), random.Random(0)
    near_the_end = range(len(whole) - 200, len(whole))
    for place in [*near_the_end, *(chance.randrange(len(whole)) for _ in range(200))]:
        for bit in (1, 128):
            altered = bytearray(whole)
            altered[place] ^= bit
            sealed.write_bytes(altered)
            assert integrity_error(sealed), f"bit {bit} of byte {place} - {len(whole)}"
    for size in [0, 1, 21, 22, len(whole) // 2, *range(len(whole) - 120, len(whole))]:
        sealed.write_bytes(whole[:size])
        assert integrity_error(sealed), f"cut to {size} of {len(whole)} bytes"
    sealed.write_bytes(whole + b"\0")
    assert integrity_error(sealed)
    sealed.write_bytes(whole)
    assert integrity_error(sealed) is None


def test_what_others_wrote_has_no_digest_and_passes(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "plain.ckpt")
    assert integrity_error(tmp_path / "plain.ckpt") is None


def test_the_checkpoint_before_a_damaged_one_is_taken(cli, tmp_path: Path) -> None:
    assert cli(*RUN, "hydra.run.dir=mine").code == 0
    mine = tmp_path / "mine"
    shutil.copytree(mine, tmp_path / "straight")
    shutil.copyfile(mine / "previous.ckpt", mine / "best.ckpt")  # older than the last, too
    last = (mine / "last.ckpt").read_bytes()
    (mine / "last.ckpt").write_bytes(last[: len(last) // 2])
    told = cli("resume=mine")
    assert told.code == 0, told.err
    assert "mine/last.ckpt is damaged (it is truncated, or not a checkpoint)" in told.err
    assert "from 5 batches" in told.out
    assert not unequal(mine / "last.ckpt", tmp_path / "straight" / "last.ckpt")
    assert (mine / "metrics.csv").read_bytes() == (tmp_path / "straight" / "metrics.csv").read_bytes()
    assert (mine / "last.ckpt.damaged").read_bytes() == last[: len(last) // 2], "set aside, not moved over a good one"

    (mine / "best.ckpt").write_bytes(b"PK\x03\x04 nothing")
    assert zoo.load(mine).registered_name == "ae", "the last is as good"
    sampled = cli("sample", "mine", "-n", "4", entry=main)
    assert sampled.code == 0
    assert "best.ckpt is damaged" in sampled.err
    for path in mine.glob("*.ckpt"):
        path.write_bytes(last[:1000])
    told = cli("resume=mine")
    assert told.code == 1
    assert "all checkpoints are damaged" in told.err
    assert latest_intact(RunFolder(tmp_path / "nowhere")) is None


def test_a_run_without_a_checkpoint_begins_again(cli, tmp_path: Path) -> None:
    """Killed before its first checkpoint, with rows on the disk."""
    assert cli(*RUN, "hydra.run.dir=mine").code == 0
    table = (tmp_path / "mine" / "metrics.csv").read_bytes()
    for path in (tmp_path / "mine").glob("*.ckpt"):
        path.unlink()
    told = cli("resume=mine")
    assert told.code == 0, told.err
    assert "from the beginning" in told.out
    assert (tmp_path / "mine" / "metrics.csv").read_bytes() == table


@pytest.fixture
def small(tmp_path: Path):
    """A disk of 6 MB: about three checkpoints."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("only root may mount a small disk; the test below injects the error")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_last_checkpoint(small: Path, cli) -> None:
    told = cli(*RUN, "trainer.max_steps=60", "hydra.run.dir=small/mine")
    assert told.code == 1
    assert "the disk is full after" in told.err
    assert "python train.py resume=small/mine" in told.err
    assert "Traceback" not in told.err
    start = latest_intact(RunFolder(small / "mine"))
    assert start is not None
    assert torch.load(start, weights_only=True)["run"]["batches"] >= 1
    assert not list((small / "mine").glob(".*.draft"))
    zoo.load(small / "mine")


def test_a_disk_that_is_full_before_the_run_has_no_trace_of_it(small: Path, cli) -> None:
    with suppress(OSError), (small / "other").open("wb") as file:
        file.write(bytes(2**23))
    told = cli(*RUN, "hydra.run.dir=small/mine")
    assert told.code == 1
    assert "no space left on device" in told.err
    assert [path.name for path in small.iterdir()] == ["other"]


class Full(io.FileIO):
    """A disk with room for 1000 bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 1000:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_no_room_while_saving_is_said_as_it_is(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's writer would raise another error, which is indistinguishable from a bug."""
    before = sealed.read_bytes()
    monkeypatch.setattr(Path, "open", lambda self, mode: Full(self, mode))
    with pytest.raises(OSError, match="No space left") as raised:
        HashedCheckpointIO().save_checkpoint({"a": torch.zeros(3000)}, sealed)
    assert raised.value.errno == 28
    monkeypatch.undo()
    assert sealed.read_bytes() == before
    assert [p.name for p in sealed.parent.iterdir()] == [sealed.name]
