"""Checkpoints: the newest, the one before it, and the best."""

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
    """Writes last.ckpt after every validation, and best.ckpt where the monitored metric has never been lower.

    What was last.ckpt becomes previous.ckpt, in case the newest turns out to be damaged. Lightning's ModelCheckpoint
    writes its `last` only together with a new best, which loses everything since then. A file is there completely or
    not at all; a value that is not finite is never the best.

    Args:
        run: whose files to write.
        every: also after so many batches; 0 leaves it to the validations.
        sentinel: vouches for what is saved.
    """

    def __init__(self, run: RunFolder, every: int = 0, sentinel: NonFiniteGuard | None = None) -> None:
        self.run, self.every, self.sentinel = run, every, sentinel or NonFiniteGuard(run)
        self.best, self.saved = math.inf, -1  # the value; batches that the newest checkpoint has had

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Have checkpoints sealed."""
        trainer.strategy.checkpoint_io = HashedCheckpointIO()

    @property
    def best_or_none(self) -> float | None:
        """The best value, or None before the first validation."""
        return self.best if math.isfinite(self.best) else None

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A resumed run has to beat what came before."""
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how long the records are at this moment."""
        checkpoint["run"] = {
            "batches": batches_done(trainer),
            **(log_offsets(trainer) if trainer.is_global_zero else {}),
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What a resumed run begins with is saved already."""
        self.saved = batches_done(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save between two batches, if it is time."""
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
        """Save at the beginning of a batch, before anything of it has happened.

        Not at the end of the one before: its numbers are in metrics.csv only after that. Lightning counts the new
        batch as begun, which is undone while it saves: then it goes on as after a validation.
        """
        with rewind_batch_counter(trainer):
            self.save(trainer)

    def save(self, trainer: L.Trainer, better: bool = False) -> None:
        """Write last.ckpt, and best.ckpt if it is `better`; all processes call this together.

        Raises:
            BadNumbers: something in it is not finite; what was saved before stays.
        """
        self.sentinel.vouch(trainer)
        fresh = self.run.last.with_name(".fresh.ckpt.draft")
        try:
            trainer.save_checkpoint(fresh)  # takes part in all processes, writes in the first
            if trainer.is_global_zero:
                self.put_in_place(fresh, better)
        finally:
            if trainer.is_global_zero:
                fresh.unlink(missing_ok=True)
        self.saved = batches_done(trainer)

    def put_in_place(self, fresh: Path, better: bool) -> None:
        """Pass the new file on; at every moment there is a whole one."""
        if better:  # first: a run that is killed in between judges the same weights again
            with atomic_replace(self.run.best) as draft:
                shutil.copyfile(fresh, draft)
                fsync(draft)
        if self.run.last.exists():
            os.replace(self.run.last, self.run.previous)
        os.replace(fresh, self.run.last)
        fsync(self.run.folder)


def batches_done(trainer: L.Trainer) -> int:
    """Batches that training is done with."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def no_pending_gradients(trainer: L.Trainer) -> bool:
    """Has every gradient gone into a step? One that is still being accumulated is in no checkpoint."""
    own, lightnings = trainer.lightning_module.hparams.get("accumulate", 1), trainer.accumulate_grad_batches
    in_epoch = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    return batches_done(trainer) % own == 0 and in_epoch % lightnings == 0


@contextmanager
def rewind_batch_counter(trainer: L.Trainer) -> Iterator[None]:
    """Lightning's counters as they were before the batch that has just been fetched."""
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
