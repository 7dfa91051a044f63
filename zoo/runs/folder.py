"""A run's folder: what lies where, and the two loggers that write into it.

runs/<date>/<time>-<model>-<data>/
    config.yaml                 everything the run was made from, resolved
    best.ckpt                   the best by the model's own validation metric
    last.ckpt  previous.ckpt    the newest, and the one before it
    metrics.csv                 every logged number but throughput and memory
    events.out.tfevents.*       the same for TensorBoard, with pictures: the folder is the TensorBoard run
    scores/                     the run's row in TensorBoard's table of hyperparameters
    metrics.json                what `zoo evaluate` measured
    samples/                    pictures or text over time, and the final ones
    overrides.yaml  train.log   the overrides as typed; messages
"""

import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from zoo.core.errors import CheckpointError
from zoo.io.atomic import atomic_replace, write_text
from zoo.io.provenance import provenance
from zoo.io.safe_yaml import read_yaml
from zoo.runs.loggers import EVENTS, RunCSVLogger, RunTensorBoardLogger

CHECKPOINTS = ("best.ckpt", "last.ckpt", "previous.ckpt")
SCORES = "scores"

log = logging.getLogger(__name__)


class RunFolder:
    """The files of one run.

    Args:
        folder: its directory; need not exist yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, here = Path(folder).absolute(), Path.cwd()
        if self.folder.is_relative_to(here):  # shorter to read and to type
            self.folder = self.folder.relative_to(here)
        self.config_file, self.overrides_file = self.folder / "config.yaml", self.folder / "overrides.yaml"
        self.best, self.last, self.previous = (self.folder / name for name in CHECKPOINTS)
        self.samples = self.folder / "samples"
        self.written: list[Path] = []  # files that `begin` made where there were none
        self.claimed = self.folder / ".claimed"  # names the process that trains here, or did last
        self.lock_file = self.folder / ".lock"
        self.lock: FileLock | None = None  # held while this process trains here; the system releases it at its death

    def claim(self, resume: bool = False) -> None:
        """Make the folder this process's own, until `release` or the end of the process, however it ends.

        Args:
            resume: the folder is a run's already, and is to be gone on with.

        Raises:
            CheckpointError: another run has it, finished or live; nothing of it was touched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            try:
                self.claimed.touch(exist_ok=False)
            except FileExistsError:
                raise CheckpointError(
                    f"{self.folder} belongs to another run: go on with it by resume={self.folder}, or start again for "
                    f"a folder of your own."
                ) from None
        lock = FileLock(self.lock_file, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            owner = self.claimed.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise CheckpointError(
                f"{self.folder} is being trained by {owner}: stop that first, or wait for its end."
            ) from None
        except (OSError, NotImplementedError) as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): see to it that no second process resumes it.", self.folder, error)
        self.claimed.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        self.lock = lock

    def release(self) -> None:
        """Let another process have the folder."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def begin(self, cfg: DictConfig) -> None:
        """Write the resolved configuration, with the versions, command and commit that a rerun needs, and what was
        typed, which `resume=` composes again. Where the run is resumed, what was there before stays on record.
        """
        self.written = [file for file in (self.config_file, self.overrides_file) if not file.exists()]
        self.samples.mkdir(parents=True, exist_ok=True)
        typed = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
        header = []
        if self.config_file.is_file():
            with self.config_file.open(encoding="utf-8") as file:
                header = [line.rstrip("\n") for line in file if line.startswith("#")]
        header += [f"# command: {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}"]
        header += [line for key, value in provenance().items() if (line := f"# {key}: {value}") not in header]
        text = "\n".join([*header, OmegaConf.to_yaml(cfg, resolve=True)])
        kept = [override for override in typed if not override.startswith("resume=")]
        write_text(self.overrides_file, OmegaConf.to_yaml(OmegaConf.create(kept)))
        write_text(self.config_file, text)

    def config(self) -> dict[str, Any]:
        """The configuration that `begin` wrote: plain values, whatever somebody may have written there since.

        Raises:
            CheckpointError: the folder is no run, or the file is not what `begin` writes.
        """
        if not self.config_file.is_file():
            raise CheckpointError(f"{self.folder} is not a run: it has no {self.config_file.name}.")
        found = read_yaml(self.config_file)
        if not isinstance(found, dict) or not all(isinstance(found.get(k), dict) for k in ("model", "data", "trainer")):
            raise CheckpointError(
                f"{self.config_file} is damaged: it does not say what model, data and trainer the run has."
            )
        return found

    def abandon(self) -> None:
        """Remove what a run that never began has left, and its folder and those of its date if they are empty now.

        The folder may be one that the user named and that holds other things: they stay.
        """
        self.release()
        for file in (*self.written, self.claimed, self.lock_file, self.folder / "train.log"):
            file.unlink(missing_ok=True)
        for folder in (self.samples, self.folder, *list(self.folder.parents)[:2]):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # something else is in it
                return

    def advice(self) -> str:
        """What to do after a run that ended before its time."""
        if self.last.is_file():
            return f"go on from its last checkpoint with python train.py resume={self.folder}"
        return "nothing was saved yet, so start again."

    def rewind(self, marks: Mapping[str, Any]) -> None:
        """Cut the records back to where `marks` were taken, and remove the drafts of processes that are no more.

        A process that is killed leaves numbers behind that are later than its last checkpoint. The resumed run writes
        them again, and they would stand there twice.

        Args:
            marks: what a checkpoint holds of them; empty for the very beginning.
        """
        for draft in [*self.folder.glob(".*.draft"), *self.samples.glob(".*.draft")]:
            draft.unlink()
        table = self.folder / "metrics.csv"
        if table.is_file():
            lines = table.read_bytes().splitlines(keepends=True)
            kept = lines[: marks["rows"] + 1] if marks.get("rows") else []  # with the header
            if len(kept) < len(lines):
                with atomic_replace(table) as draft:
                    draft.write_bytes(b"".join(kept))
            if not kept:
                table.unlink()
        sizes = marks.get("events", {})
        for events in self.folder.glob(EVENTS):
            if events.name not in sizes:
                events.unlink()
            elif events.stat().st_size > sizes[events.name]:
                os.truncate(events, sizes[events.name])

    def loggers(self, done: int | None = None) -> list[Any]:
        """TensorBoard and metrics.csv, both in the folder itself.

        Args:
            done: batches that a resumed run has had; a TensorBoard that is watching forgets what it saw of later ones.
        """
        where = str(self.folder)
        # Pictures after batch n are filed under n, the numbers of the batch that follows too.
        board = RunTensorBoardLogger(
            where, name="", version="", default_hp_metric=False, purge_step=None if done is None else done + 1
        )
        return [board, RunCSVLogger(where, name="", version="")]
