"""Explain failures of a training: the cause, the last checkpoint, the remedy."""

import pytorch_lightning as L

from zoo.core.command import train_command
from zoo.core.counted import counted
from zoo.core.errors import CheckpointError, HardwareError, TrainingError, ZooError
from zoo.io.atomic import NO_ROOM
from zoo.io.memory import out_of_memory
from zoo.training.callbacks.checkpointer import batches_done
from zoo.training.callbacks.rng_state import RNGState
from zoo.training.context import TrainingContext


def explain_failure(error: Exception, context: TrainingContext, trainer: L.Trainer) -> ZooError | None:
    """Return the error for a full disk, exhausted memory or an invalid checkpoint; None for a defect."""
    run, cfg, start = context.run, context.cfg, context.start
    done = batches_done(trainer)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        kept = f"{run.last} is intact" if run.last.is_file() else "there is no checkpoint yet"
        return TrainingError(
            f"the disk is full after {counted(done, 'batch')}; {kept}. Free some space, then resume with: "
            f"{train_command(f'resume={run.folder}')}"
        )
    if out_of_memory(error):
        accumulate = "model.accumulate" if "accumulate" in context.model.hparams else "+trainer.accumulate_grad_batches"
        halved = "16" in str(trainer.precision)
        second = f"compensate by {accumulate}=2" if halved else "set trainer.precision=bf16-mixed"
        return HardwareError(
            f"out of memory in batch {done + 1}: data.batch_size={cfg.data.batch_size} is too large here. Halve it, "
            f"and {second}."
        )
    if start is not None and not any(isinstance(c, RNGState) and c.begun for c in trainer.callbacks):  # type: ignore[attr-defined]
        return CheckpointError(
            f"{start.path} is damaged: its training state cannot be restored ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Start a new run, or use an older checkpoint."
        )
    return None
