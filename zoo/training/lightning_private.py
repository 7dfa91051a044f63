"""Private names of Lightning 2.6 outside the fast loop, each with a public fallback if the name is missing."""

import os
from typing import Any

import pytorch_lightning as L


def starts_processes(trainer: L.Trainer) -> bool:
    """Whether the trainer launches further processes. Under torchrun or SLURM it does not."""
    launcher = trainer.strategy.launcher
    environment = getattr(launcher, "cluster_environment", None)
    if environment is None:  # one process, or processes that are forked
        return False
    return trainer.world_size > 1 and not environment.creates_processes_externally


def process_rank() -> int:
    """Rank of this process, before a trainer exists."""
    try:
        from lightning_fabric.utilities.rank_zero import _get_rank
    except ImportError:
        return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or 0)
    return _get_rank() or 0


def batches_done(trainer: L.Trainer) -> int:
    """Number of processed batches."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def log_by_batches(trainer: L.Trainer) -> None:
    """Log rows in batches where the optimizer does not step too: Lightning leaves them out under accumulation."""
    connector: Any = getattr(trainer, "_logger_connector", None)
    if trainer.accumulate_grad_batches == 1 or not hasattr(connector, "update_train_step_metrics"):
        return

    def update() -> None:
        if connector.should_update_logs:
            connector.log_metrics(connector.metrics["log"])

    connector.update_train_step_metrics = update


def set_logged_step(trainer: L.Trainer) -> None:
    """Set the horizontal axis of logged values to the number of batches; Lightning counts optimizer steps."""
    loop = trainer.fit_loop.epoch_loop
    if hasattr(loop, "_batches_that_stepped"):
        loop._batches_that_stepped = loop.total_batch_idx
