"""Objects that the parts of one training share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as L
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from rich.console import Console

from zoo.data.base import DataModule
from zoo.models.base import Model
from zoo.runs.folder import RunFolder
from zoo.training.callbacks.checkpointer import Checkpointer
from zoo.training.callbacks.nan_guard import NonFiniteGuard
from zoo.training.resume import ResumePoint


@dataclass
class TrainingContext:
    """One training: configuration, folder, model, data and checkpoints. Registered callbacks may take it.

    Args:
        cfg: composed configuration.
        run: folder of its files.
        model: the model to train.
        data: the datamodule.
        console: receives messages for the user.
        start: checkpoint of a resumed run.
        is_rank_zero: whether this process writes the files.
        callbacks: further callbacks.
        loggers: further loggers.
        options: further arguments of Lightning's Trainer.
    """

    cfg: DictConfig
    run: RunFolder
    model: Model
    data: DataModule
    console: Console = field(default_factory=lambda: Console(quiet=True))
    start: ResumePoint | None = None
    is_rank_zero: bool = True
    callbacks: Sequence[L.Callback] = ()
    loggers: Sequence[Logger] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    checkpointer: Checkpointer = field(init=False)

    def __post_init__(self) -> None:
        guard = NonFiniteGuard(self.run, self.cfg.trainer.on_nonfinite == "skip")
        self.checkpointer = Checkpointer(self.run, self.cfg.trainer.checkpoint_every or 0, guard)
