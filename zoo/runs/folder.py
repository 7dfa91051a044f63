"""Run folder: layout, lock, and the two loggers that write into it.

```
runs/<date>/<time>-<model>-<data>/
    config.yaml                 resolved configuration
    best.ckpt                   best checkpoint by the model's validation metric
    last.ckpt  previous.ckpt    latest checkpoint, and the one before it
    metrics.csv                 all logged numbers except throughput and memory
    events.out.tfevents.*       the same for TensorBoard, with pictures
    events.out.tfevents.*.evaluated   results of `zoo evaluate` in TensorBoard's table of hyperparameters
    metrics.json                results of `zoo evaluate`
    samples/                    pictures or text over time, and the final ones
    overrides.yaml  train.log   overrides as typed; messages
```
"""

import logging
import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from zoo.core.errors import CheckpointError, printable
from zoo.io.atomic import atomic_replace, write_text
from zoo.io.folders import make_folder, remove_empty
from zoo.io.provenance import provenance
from zoo.io.safe_yaml import read_yaml
from zoo.runs.loggers import RunCSVLogger, RunTensorBoardLogger, training_events

CHECKPOINTS = ("best.ckpt", "last.ckpt", "previous.ckpt")
PUBLISHED = "model.safetensors"  # the weights in a folder of `zoo pull`

log = logging.getLogger(__name__)


class RunFolder:
    """The files of one run.

    Args:
        folder: its directory; need not exist yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, here = Path(folder).absolute(), Path.cwd()
        if self.folder.is_relative_to(here):  # shorter to display
            self.folder = self.folder.relative_to(here)
        self.config_file, self.overrides_file = self.folder / "config.yaml", self.folder / "overrides.yaml"
        self.best, self.last, self.previous = (self.folder / name for name in CHECKPOINTS)
        self.samples = self.folder / "samples"
        self.created: list[Path] = []  # files that a run which never starts removes
        self.owner_file = self.folder / ".claimed"  # text: the last process that trained here
        self.lock_file = self.folder / ".lock"
        self.lock: FileLock | None = None  # the system releases it when the process dies

    def acquire_lock(self, resume: bool = False) -> None:
        """Lock the folder for this process, until `release_lock` or the end of the process, even by a crash.

        Args:
            resume: continue the run that is already in this folder.

        Raises:
            CheckpointError: the folder belongs to another run, finished or live; nothing was changed.
        """
        make_folder(self.folder)
        if not resume:
            self._check_without_run()
            files = (self.owner_file, self.lock_file, self.folder / "train.log")
            self.created = [file for file in files if not file.exists()]
        lock = FileLock(self.lock_file, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            owner = self.owner_file.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise CheckpointError(
                f"{self.folder} is being trained by {owner}. Stop that process, or wait for its end."
            ) from None
        except (OSError, NotImplementedError) as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): do not resume it in a second process.", self.folder, error)
            if not resume:
                self._claim()
        self.lock = lock
        if not resume:  # another process may have trained since
            self._check_without_run()
        try:
            self.owner_file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError:  # the disk is full
            self.clean_up()
            raise

    def _check_without_run(self) -> None:
        """Refuse a folder with files of a run; a process that died before it wrote them leaves no run."""
        files = (self.config_file, self.overrides_file, self.best, self.last, self.previous)
        if any(file.exists() for file in files):
            self.release_lock()
            raise CheckpointError(
                f"{self.folder} belongs to another run. Continue it by resume={self.folder}, or choose another folder."
            )

    def _claim(self) -> None:
        """Take a folder that cannot be locked."""
        try:
            self.owner_file.touch(exist_ok=False)
        except FileExistsError:
            owner = self.owner_file.read_text(encoding="utf-8", errors="replace").strip()
            raise CheckpointError(
                f"{self.folder} was taken by {owner or 'another process'}. Choose another folder, or remove "
                f"{self.owner_file} if that process has ended."
            ) from None

    def is_live(self) -> bool:
        """Whether a process, possibly this one, trains here."""
        try:
            with FileLock(self.lock_file, timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):  # a file system without locks
            return False

    def release_lock(self) -> None:
        """Release the lock."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def write_config(self, cfg: DictConfig, overrides: Sequence[str] | None) -> None:
        """Write the resolved configuration, and the overrides that `resume=` composes again.

        Versions, command and commit are created as comments; those of a resumed run are kept.

        Args:
            cfg: composed configuration.
            overrides: those that compose it; None if it holds objects from Python, which no command can name.
        """
        self.created += [file for file in (self.config_file, self.overrides_file) if not file.exists()]
        make_folder(self.samples)
        header = []
        if self.config_file.is_file():
            with self.config_file.open(encoding="utf-8") as file:
                header = [line.rstrip("\n") for line in file if line.startswith("#")]
        header += [f"# command: {printable(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))}"]
        header += [line for key, value in provenance().items() if (line := f"# {key}: {value}") not in header]
        text = "\n".join([*header, OmegaConf.to_yaml(cfg, resolve=True)])
        if overrides is not None:
            kept = [override for override in overrides if not override.startswith("resume=")]
            write_text(self.overrides_file, OmegaConf.to_yaml(OmegaConf.create(kept)))
        write_text(self.config_file, text)

    def prompt_template(self) -> str:
        """The template that prompts of its data were made by; nothing without one, or without a configuration."""
        return str(self.config()["data"].get("prompt") or "") if self.config_file.is_file() else ""

    def config(self) -> dict[str, Any]:
        """Read the configuration of the run as plain values; the file is untrusted.

        Raises:
            CheckpointError: the folder is not a run, or the file is damaged.
        """
        if not self.config_file.is_file():
            raise CheckpointError(
                f"{self.folder} is not a run: {self.config_file.name} is missing. Choose another folder."
            )
        config = read_yaml(self.config_file)
        groups = [config.get(k) for k in ("model", "data", "trainer")] if isinstance(config, dict) else [None]
        if not all(isinstance(group, dict) for group in groups):
            raise CheckpointError(
                f"{self.config_file} is damaged: model, data or trainer is missing. Choose another run."
            )
        return config

    def clean_up(self) -> None:
        """Remove the files of a run that never started, and its folders if they are empty.

        Other files stay, and so do folders that existed before.
        """
        self.release_lock()
        for file in self.created:
            file.unlink(missing_ok=True)
        for folder in (self.samples, self.folder):
            remove_empty(folder)

    def truncate_logs(self, offsets: Mapping[str, Any]) -> None:
        """Truncate logs to `offsets`, and remove drafts of dead processes.

        A killed process leaves numbers later than its last checkpoint. The resumed run logs them again, so they would
        appear twice.

        Args:
            offsets: log lengths from a checkpoint; empty to delete all.
        """
        for draft in [*self.folder.glob(".*.draft"), *self.samples.glob(".*.draft")]:
            draft.unlink()
        table = self.folder / "metrics.csv"
        if table.is_file():
            lines = table.read_bytes().splitlines(keepends=True)
            kept = lines[: offsets["rows"] + 1] if offsets.get("rows") else []  # including the header
            if len(kept) < len(lines):
                with atomic_replace(table) as draft:
                    draft.write_bytes(b"".join(kept))
            if not kept:
                table.unlink()
        sizes = offsets.get("events", {})
        for events in training_events(self.folder):
            if events.name not in sizes:
                events.unlink()
            elif events.stat().st_size > sizes[events.name]:
                os.truncate(events, sizes[events.name])

    def loggers(self, done: int | None = None) -> list[Any]:
        """TensorBoard and CSV loggers of the folder.

        Args:
            done: number of batches before a resume; TensorBoard discards what it has read of later ones.
        """
        # Step n has pictures after batch n and numbers of the next batch: keep it, purge from n + 1.
        board = RunTensorBoardLogger(
            str(self.folder),
            name="",
            version="",
            default_hp_metric=False,
            purge_step=None if done is None else done + 1,
        )
        return [board, RunCSVLogger(self.folder)]
