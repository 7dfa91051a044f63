"""Checkpoints: the newest and the best."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as L

from zoo.models.base import GenerativeModel
from zoo.run import Run


class Keeper(L.Callback):
    """Writes last.ckpt after every validation, and best.ckpt where the monitored metric has never been lower.

    Lightning's ModelCheckpoint writes its `last` only together with a new best, which loses everything since then.
    A file is there completely or not at all; a value that is not finite is never the best.

    Args:
        run: whose files to write.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.best = run, math.inf

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A resumed run has to beat what came before."""
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save."""
        assert isinstance(pl_module, GenerativeModel)
        if trainer.sanity_checking:
            return
        score = trainer.callback_metrics.get(pl_module.monitor)
        better = score is not None and score.item() < self.best
        if better:
            self.best = score.item()  # type: ignore[union-attr]
        save(trainer, self.run.last)
        if better and trainer.is_global_zero:
            with replacing(self.run.best) as draft:
                shutil.copyfile(self.run.last, draft)


def save(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint whole or not at all; all processes call this together.

    Lightning's own writing goes through the system's temporary folder, and from another disk it is no longer atomic.
    """
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path)  # takes part, writes nothing
        return
    with replacing(path) as draft:
        trainer.save_checkpoint(draft)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes its place if all goes well and is gone if not."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
