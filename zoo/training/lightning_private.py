"""Private names of Lightning 2.6 outside the fast loop, each with a public fallback if the name is missing."""

import os

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
