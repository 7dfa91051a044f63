"""TensorBoard and CSV loggers that survive an exact resume."""

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
PATIENCE = 2.0  # seconds that numbers may take to appear in TensorBoard


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger without its `hparams.yaml`: config.yaml says it all."""

    flushed = 0.0  # when

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """All numbers of a batch as one event."""
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)

    def save(self) -> None:
        """Flush the event file, which waits for the thread that writes it: not at every batch."""
        if time.monotonic() - self.flushed > PATIENCE:
            self.flush()

    def flush(self) -> None:
        """Now."""
        self.experiment.flush()
        self.flushed = time.monotonic()


def summary_writer(trainer: L.Trainer) -> Any:
    """The SummaryWriter of a training; None on all processes but the first, and where there is no TensorBoard."""
    found = (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    return next(found, None) if trainer.is_global_zero else None


def log_offsets(trainer: L.Trainer) -> dict[str, Any]:
    """How long the records of a training are, all written out: what `Run.rewind` takes."""
    found: dict[str, Any] = {}
    for logger in trainer.loggers:
        logger.save()
        if isinstance(logger, RunCSVLogger):
            found["rows"] = logger.experiment.rows
        if isinstance(logger, RunTensorBoardLogger):
            logger.flush()
            found["events"] = {file.name: file.stat().st_size for file in Path(logger.log_dir).glob(EVENTS)}
    return found


class RunCSVLogger(CSVLogger):
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
    rows = 0  # in the file

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
