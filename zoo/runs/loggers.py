"""TensorBoard and CSV loggers for exact resumption."""

import csv
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from lightning_fabric.loggers.csv_logs import _ExperimentWriter
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary

from zoo.io.atomic import atomic_replace

EVENTS = "events.out.tfevents.*"
EVALUATED = ".evaluated"  # suffix of the events of `zoo evaluate`
LOSSES = ("train/", "val/", "test/")
FLUSH_SECONDS = 2.0  # maximum delay of numbers in TensorBoard


def tag_of(name: str) -> str:
    """TensorBoard's tag of a number. TensorBoard sorts groups by name: losses come first, other numbers last."""
    return name if name.startswith(LOSSES) else f"watch/{name}"


def picture_tag(name: str) -> str:
    """TensorBoard's tag of a picture or text, behind the losses too."""
    return f"view/{name}"


def training_events(folder: Path) -> list[Path]:
    """TensorBoard files of the training, without those of evaluations."""
    return [file for file in sorted(folder.glob(EVENTS)) if file.suffix != EVALUATED]


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger without `hparams.yaml`, which config.yaml replaces."""

    last_flush = 0.0  # time.monotonic()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write all numbers of a batch as one event."""
        values = [Summary.Value(tag=tag_of(name), simple_value=float(value)) for name, value in metrics.items()]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)

    def save(self) -> None:
        """Flush the event file, at most every `FLUSH_SECONDS`: flushing waits for the writer thread."""
        if time.monotonic() - self.last_flush > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Flush now."""
        self.experiment.flush()
        self.last_flush = time.monotonic()


def summary_writer(trainer: L.Trainer) -> Any:
    """SummaryWriter of a training; None on ranks other than 0 and without TensorBoard."""
    found = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(found, None) if trainer.is_global_zero else None


def log_offsets(trainer: L.Trainer) -> dict[str, Any]:
    """Current lengths of all logs after flushing, the input of `RunFolder.truncate_logs`."""
    found: dict[str, Any] = {}
    for logger in trainer.loggers:
        logger.save()
        if isinstance(logger, RunCSVLogger):
            found["rows"] = logger.experiment.rows
        if isinstance(logger, RunTensorBoardLogger):
            logger.flush()
            found["events"] = {file.name: file.stat().st_size for file in training_events(Path(logger.log_dir))}
    return found


class RunCSVLogger(CSVLogger):
    """Lightning's CSV logger, which appends to the table of a resumed run instead of deleting it.

    Throughput and memory go to TensorBoard only, so that a seed determines the bytes of the file.
    """

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add the numbers that the seed determines."""
        kept = {k: v for k, v in metrics.items() if not k.startswith(("speed/", "memory/"))}
        super().log_metrics(kept, step)

    @property
    def experiment(self) -> Any:
        """Writer of metrics.csv."""
        if self._experiment is None:
            os.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _Rows(log_dir=self.log_dir)
        return self._experiment

    def save(self) -> None:
        """Append the new rows."""
        self.experiment.save()


class _Rows(_ExperimentWriter):
    rows = 0  # rows in the file

    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline="") as file:
                reader = csv.DictReader(file)
                self.metrics_keys = list(reader.fieldnames or [])
                self.rows = sum(1 for _ in reader)

    def save(self) -> None:
        new = len(self.metrics)
        super().save()
        self.rows += new

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with open(self.metrics_file_path, newline="") as file:
            rows = list(csv.DictReader(file))
        with atomic_replace(Path(self.metrics_file_path)) as draft, draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)
