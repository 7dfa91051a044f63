"""A run's folder: what lies where, and the two loggers that write into it.

runs/<date>/<time>-<model>-<data>/
    config.yaml                 everything the run was made from, resolved
    best.ckpt  last.ckpt        the best by the model's own validation metric, and the newest
    metrics.csv                 every logged number but throughput and memory
    events.out.tfevents.*       the same for TensorBoard, with pictures: the folder is the TensorBoard run
    samples/                    pictures or text over time, and the final ones
    overrides.yaml  train.log   the overrides as typed; messages
"""

import csv
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning_fabric.loggers.csv_logs import _ExperimentWriter
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from zoo.errors import ZooError

CHECKPOINTS = ("best.ckpt", "last.ckpt")


class Run:
    """The files of one run.

    Args:
        folder: its directory; need not exist yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, here = Path(folder).absolute(), Path.cwd()
        if self.folder.is_relative_to(here):  # shorter to read and to type
            self.folder = self.folder.relative_to(here)
        self.config_file, self.overrides_file = self.folder / "config.yaml", self.folder / "overrides.yaml"
        self.best, self.last = (self.folder / name for name in CHECKPOINTS)
        self.samples = self.folder / "samples"

    def claim(self) -> None:
        """Make the folder this run's own.

        Raises:
            ZooError: another run has it, finished or live; nothing of it was touched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / ".claimed").touch(exist_ok=False)
        except FileExistsError:
            raise ZooError(
                f"{self.folder} belongs to another run: go on with it by resume={self.folder}, or start again for a "
                f"folder of your own."
            ) from None

    def begin(self, cfg: DictConfig) -> None:
        """Write the resolved configuration, with the versions, command and commit that a rerun needs, and what was
        typed, which `resume=` composes again.
        """
        self.samples.mkdir(parents=True, exist_ok=True)
        header = [f"# command: {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}"]
        header += [f"# {key}: {value}" for key, value in provenance().items()]
        text = "\n".join([*header, OmegaConf.to_yaml(cfg, resolve=True)])
        typed = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
        write_text(self.overrides_file, OmegaConf.to_yaml(OmegaConf.create(typed)))
        write_text(self.config_file, text)

    def config(self) -> DictConfig:
        """The configuration that `begin` wrote.

        Raises:
            ZooError: the folder is no run.
        """
        if not self.config_file.is_file():
            raise ZooError(f"{self.folder} is not a run: it has no {self.config_file.name}.")
        return OmegaConf.load(self.config_file)  # type: ignore[return-value]

    def abandon(self) -> None:
        """Remove the folder of a run that never began, and the folders of its date if they are empty now."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in list(self.folder.parents)[:2]:
            try:
                parent.rmdir()
            except OSError:  # something else is in it
                return

    def advice(self) -> str:
        """What to do after a run that ended before its time."""
        if self.last.is_file():
            return f"go on from its last checkpoint with python train.py resume={self.folder}"
        return "nothing was saved yet, so start again."

    def loggers(self) -> list[Any]:
        """TensorBoard and metrics.csv, both in the folder itself."""
        where = str(self.folder)
        return [Board(where, name="", version="", default_hp_metric=False), Table(where, name="", version="")]


class Board(TensorBoardLogger):
    """Lightning's TensorBoard logger without its `hparams.yaml`: config.yaml says it all."""

    def save(self) -> None:
        """Flush the event file."""
        self.experiment.flush()


def board(trainer: L.Trainer) -> Any:
    """The SummaryWriter of a training; None on all processes but the first, and where there is no TensorBoard."""
    found = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(found, None) if trainer.is_global_zero else None


class Table(CSVLogger):
    """Lightning's CSV logger, which continues the table of a resumed run instead of deleting it.

    Throughput and memory are left to TensorBoard: without them the same seed gives the same bytes.
    """

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Enter what the seed determines."""
        kept = {k: v for k, v in metrics.items() if not k.startswith(("speed/", "memory/"))}
        super().log_metrics(kept, step)

    @property
    def experiment(self) -> Any:
        """The writer of metrics.csv."""
        if self._experiment is None:
            os.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _Rows(log_dir=self.log_dir)
        return self._experiment

    def save(self) -> None:
        """Append the new rows."""
        self.experiment.save()


class _Rows(_ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def provenance() -> dict[str, str]:
    """Versions, machine and source commit."""
    packages = ("zoo", "torch", "pytorch-lightning", "hydra-core")
    found = {name: version(name) for name in packages}
    found |= {"python": platform.python_version(), "platform": platform.platform()}
    checkout = Path(__file__).parents[1]
    if (checkout / ".git").exists():  # not so in an installed wheel
        command = ["git", "describe", "--always", "--dirty"]
        found["commit"] = subprocess.run(command, cwd=checkout, capture_output=True, text=True).stdout.strip()
    return found
