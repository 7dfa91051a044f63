"""TensorBoard and CSV loggers for exact resumption."""

import csv
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

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


def log_gif(writer: Any, tag: str, content: bytes, size: tuple[int, ...], step: int) -> None:
    """Show a GIF file of (height, width) in TensorBoard, as `SummaryWriter.add_video` does with another package."""
    picture = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=content)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)


def log_offsets(trainer: L.Trainer) -> dict[str, Any]:
    """Current lengths of all logs after flushing, the input of `RunFolder.truncate_logs`."""
    found: dict[str, Any] = {}
    for logger in trainer.loggers:
        logger.save()
        if isinstance(logger, RunCSVLogger):
            found["rows"] = logger.rows
        if isinstance(logger, RunTensorBoardLogger):
            logger.flush()
            found["events"] = {file.name: file.stat().st_size for file in training_events(Path(logger.log_dir))}
    return found


class RunCSVLogger(Logger):
    """Write metrics.csv: a row per logged batch, a column per name. A resumed run appends to its table.

    Throughput and memory go to TensorBoard only, so that a seed determines the bytes of the file.
    """

    name = version = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "metrics.csv"

    # Both are read at the first use: a resume truncates the file after the logger is built.

    @cached_property
    def columns(self) -> list[str]:
        """Columns of the file, sorted."""
        return list(self._table()[0])

    @cached_property
    def rows(self) -> int:
        """Number of rows in the file."""
        return len(self._table()[1])

    def _table(self) -> tuple[Sequence[str], list[dict[str, str]]]:
        if not self.file.is_file():
            return [], []
        with self.file.open(newline="") as file:
            reader = csv.DictReader(file)
            return reader.fieldnames or [], list(reader)

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.file.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Ignore hyperparameters: config.yaml contains them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append the numbers that the seed determines."""
        kept = {k: v for k, v in metrics.items() if not k.startswith(("speed/", "memory/"))}
        row = {k: v.item() if isinstance(v, Tensor) else v for k, v in kept.items()} | {"step": step}
        if new := row.keys() - set(self.columns):
            self._add_columns(new)
        self.rows += 1
        with self.file.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _add_columns(self, names: set[str]) -> None:
        _, old = self._table()
        self.columns = sorted([*self.columns, *names])
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replace(self.file) as draft, draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(old)
