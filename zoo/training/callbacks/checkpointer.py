"""Checkpoints: the last, the previous, and the best."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as L

from zoo.io.atomic import atomic_replace, fsync
from zoo.io.checkpoint_file import HashedCheckpointIO
from zoo.models.base import Model
from zoo.runs.folder import RunFolder
from zoo.runs.loggers import log_offsets
from zoo.training.callbacks.nan_guard import NonFiniteGuard


class Checkpointer(L.Callback):
    """Writes last.ckpt after every validation, and best.ckpt if the monitored metric is the lowest so far.

    The old last.ckpt becomes previous.ckpt, in case the new one gets damaged. All writes are atomic. (Lightning's
    ModelCheckpoint writes its `last` only with a new best.) A value that is not finite is never the best.

    Args:
        run: folder of the files.
        every: batches between further checkpoints; 0 for none.
        guard: checks that everything saved is finite.
    """

    def __init__(self, run: RunFolder, every: int = 0, guard: NonFiniteGuard | None = None) -> None:
        self.run, self.every, self.guard = run, every, guard or NonFiniteGuard(run)
        self.best, self.saved = math.inf, -1  # the value; batches that the newest checkpoint has had

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write checkpoints with a digest."""
        trainer.strategy.checkpoint_io = HashedCheckpointIO()

    @property
    def best_or_none(self) -> float | None:
        """The best value, or None before the first validation."""
        return self.best if math.isfinite(self.best) else None

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value."""
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the current lengths of the log files."""
        checkpoint["run"] = {
            "batches": batches_done(trainer),
            **(log_offsets(trainer) if trainer.is_global_zero else {}),
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the checkpoint of a resumed run as saved."""
        self.saved = batches_done(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save between two batches, if due."""
        due = self.every and batches_done(trainer) // self.every > self.saved // self.every
        if due and no_pending_gradients(trainer):
            self.save_between(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save."""
        assert isinstance(pl_module, Model)
        if trainer.sanity_checking:
            return
        score = trainer.callback_metrics.get(pl_module.monitor)
        better = score is not None and score.item() < self.best
        if better:
            self.best = score.item()  # type: ignore[union-attr]
        self.save(trainer, better)

    def save_between(self, trainer: L.Trainer) -> None:
        """Save at the start of a batch, before it is processed.

        At the end of the previous batch, its row of metrics.csv would be missing. Lightning counts the new batch as
        started, which is undone during the save.
        """
        with rewind_batch_counter(trainer):
            self.save(trainer)

    def save(self, trainer: L.Trainer, better: bool = False) -> None:
        """Write last.ckpt, and best.ckpt if `better`; all processes call this together.

        Raises:
            NonFiniteError: a value is not finite; the files on disk stay unchanged.
        """
        self.guard.assert_finite(trainer)
        fresh = self.run.last.with_name(".fresh.ckpt.draft")
        try:
            trainer.save_checkpoint(fresh)  # takes part in all processes, writes in the first
            if trainer.is_global_zero:
                self.promote(fresh, better)
        finally:
            if trainer.is_global_zero:
                fresh.unlink(missing_ok=True)
        self.saved = batches_done(trainer)

    def promote(self, fresh: Path, better: bool) -> None:
        """Move the new file into place; at every moment, one intact file exists."""
        if better:  # first: a run that is killed in between evaluates the same weights again
            with atomic_replace(self.run.best) as draft:
                shutil.copyfile(fresh, draft)
                fsync(draft)
        if self.run.last.exists():
            os.replace(self.run.last, self.run.previous)
        os.replace(fresh, self.run.last)
        fsync(self.run.folder)


def batches_done(trainer: L.Trainer) -> int:
    """Number of processed batches."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def no_pending_gradients(trainer: L.Trainer) -> bool:
    """Whether all accumulated gradients have been applied; checkpoints do not contain them."""
    own, lightnings = trainer.lightning_module.hparams.get("accumulate", 1), trainer.accumulate_grad_batches
    in_epoch = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    return batches_done(trainer) % own == 0 and in_epoch % lightnings == 0


@contextmanager
def rewind_batch_counter(trainer: L.Trainer) -> Iterator[None]:
    """Restore Lightning's counters to their state before the current batch was fetched."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    was_last = progress.is_last_batch
    progress.total.ready -= 1
    progress.current.ready -= 1
    progress.is_last_batch = False
    try:
        yield
    finally:
        progress.total.ready += 1
        progress.current.ready += 1
        progress.is_last_batch = was_last
