"""Lightning's private names outside of the fast loop, each with a public way as the fallback.

Checked with Lightning 2.6; on another release, or where a name is missing, the public way is used.
"""

import os

import pytorch_lightning as L


def starts_processes(trainer: L.Trainer) -> bool:
    """Whether the trainer repeats the command in other processes. Under torchrun or SLURM it does not."""
    launcher = trainer.strategy.launcher
    environment = getattr(launcher, "cluster_environment", None)
    if environment is None:  # one process, or processes that are forked
        return False
    return trainer.world_size > 1 and not environment.creates_processes_externally


def process_rank() -> int:
    """The rank of this process, before there is a trainer."""
    try:
        from lightning_fabric.utilities.rank_zero import _get_rank
    except ImportError:
        return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or 0)
    return _get_rank() or 0
