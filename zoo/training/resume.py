"""Going on with a run: from which checkpoint, what may differ from before, and records that fit."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from zoo.config.compose import to_plain
from zoo.config.flatten import flatten
from zoo.core.errors import CheckpointError, ConfigError, DataError
from zoo.data.base import DataModule
from zoo.io.checkpoint_file import integrity_error
from zoo.io.vetting import check_state_dict
from zoo.models.base import Model
from zoo.runs.checkpoint import latest_intact, read_checkpoint
from zoo.runs.folder import RunFolder

# What may differ from before: where and how it is computed, watched and stored, and for how long. Everything else
# decides what is learned, and with it changed the run would no longer be the one that was begun.
CHANGEABLE = (
    *("max_steps", "val_check_interval", "limit_val_batches", "log_every_n_steps", "checkpoint_every", "on_nonfinite"),
    *("accelerator", "precision", "tf32", "compile", "deterministic", "strategy", "fast_loop"),
)
UNSEEN = {
    *(f"trainer.{key}" for key in CHANGEABLE),
    "data.path",
    "data.download",
    "data.memory_gb",
    "resume",
    "profiler",
    "tune",
}
UNSEEN_GROUPS = ("model.training.", "logger.")


@dataclass(frozen=True)
class ResumePoint:
    """Where a resumed run goes on."""

    path: Path
    batches: int  # that it has had
    marks: dict[str, Any] | None  # how long its records were then


def find_resume_point(cfg: DictConfig, run: RunFolder, model: Model, data: DataModule) -> ResumePoint | None:
    """The newest checkpoint that is whole, if the configuration goes on with what it holds; None is the beginning.

    Raises:
        ConfigError: the configuration would change what is learned.
        CheckpointError: all checkpoints are damaged.
        DataError: other data than before.
    """
    before, now = flatten(run.config()), flatten(to_plain(cfg))
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and key not in UNSEEN and not key.startswith(UNSEEN_GROUPS)
    )
    path = latest_intact(run)
    checkpoint = read_checkpoint(path) if path else {}
    if checkpoint:
        saved = {"name": checkpoint["zoo"]["model"], **checkpoint.get("hyper_parameters", {})}
        asked = {"name": model.registered_name, **model.hparams}
        parts = {key.split(".")[1] for key in changed if key.startswith("model.")}
        differ = {key for key in saved.keys() | asked.keys() if saved.get(key) != asked.get(key)}
        changed += [f"model.{key}" for key in sorted(differ - parts)]
    if changed:
        one = "model" if all(key.startswith("model.") for key in changed) else "training"
        raise ConfigError(
            f"resume={run.folder} cannot change the {one}, but {', '.join(changed)} differs: leave it out, or start a "
            f"new run (of trainer, {', '.join(CHANGEABLE)} may change; of data, root)."
        )
    if path is None:
        return None
    if checkpoint["zoo"]["spec"] != data.spec.to_dict():
        raise DataError(f"resume={run.folder} needs the data that it was begun with, but found {data.spec} instead.")
    model.resize_buffers_like(checkpoint["state_dict"])
    check_state_dict(model, checkpoint["state_dict"], path)
    marks = checkpoint.get("run")
    if marks is not None and not valid_offsets(marks):
        raise CheckpointError(f"{path} is damaged: it does not say how long the run's records were; start a new run.")
    batches = marks["batches"] if marks else model.optimizer_steps_to_batches(checkpoint["global_step"])
    if cfg.trainer.max_steps < batches:
        raise ConfigError(
            f"{run.folder} has had {batches} batches, more than trainer.max_steps={cfg.trainer.max_steps}: "
            f"ask for more than it has."
        )
    return ResumePoint(path, batches, marks)


def valid_offsets(marks: Any) -> bool:
    """Are they what `zoo.runs.loggers.log_offsets` takes: numbers of batches and rows, and sizes of files?"""
    if not isinstance(marks, dict) or not isinstance(marks.get("events", {}), dict):
        return False
    sizes = [marks.get("batches"), marks.get("rows", 0), *marks.get("events", {}).values()]
    return all(isinstance(n, int) and n >= 0 for n in sizes)


def prepare_resume(cfg: DictConfig, run: RunFolder, start: ResumePoint | None) -> None:
    """Set damaged checkpoints aside, cut the records back to the start, and note that the run was resumed."""
    for path in (run.last, run.previous):
        if start and path != start.path and path.is_file() and integrity_error(path):
            os.replace(path, path.with_name(f"{path.name}.damaged"))
    if start is None:
        run.truncate_logs({})
    elif start.marks is not None:
        run.truncate_logs(start.marks)
    run.write_config(cfg)
