"""Resume a run: find its checkpoint, check the configuration, truncate its logs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from zoo.config.compose import to_plain
from zoo.config.flatten import flatten
from zoo.core import registry
from zoo.core.counted import counted
from zoo.core.errors import CheckpointError, ConfigError, DataError
from zoo.data.base import DataModule
from zoo.io.checkpoint_file import integrity_error
from zoo.io.vetting import check_state_dict
from zoo.models.base import Model
from zoo.runs.checkpoint import latest_intact, read_checkpoint
from zoo.runs.folder import RunFolder

# Settings of hardware, logging, storage and length may change. All others affect the result.
CHANGEABLE = (
    *("max_steps", "val_check_interval", "limit_val_batches", "log_every_n_steps", "checkpoint_every", "on_nonfinite"),
    *("accelerator", "precision", "tf32", "compile", "deterministic", "strategy", "fast_loop"),
)
IGNORED = {
    *(f"trainer.{key}" for key in CHANGEABLE),
    *("data.path", "data.download", "data.memory_gb", "resume", "profiler", "tune"),
}
IGNORED_GROUPS = ("model.training.", "logger.")


@dataclass(frozen=True)
class ResumePoint:
    """Checkpoint of a resumed run."""

    path: Path
    batches: int  # number of processed batches
    offsets: dict[str, Any] | None  # lengths of the log files at that time


def find_resume_point(cfg: DictConfig, run: RunFolder, model: Model, data: DataModule) -> ResumePoint | None:
    """Find the latest intact checkpoint; None if there is none yet.

    Raises:
        ConfigError: the configuration changes a setting that affects the result.
        CheckpointError: all checkpoints are damaged.
        DataError: the data have changed.
    """
    config = to_plain(cfg)
    now = flatten(config)
    default = flatten(defaults("model", config["model"]) | defaults("data", config["data"]))
    changed = {
        key
        for key in differences(flatten(run.config()), now, default)
        if key not in IGNORED and not key.startswith(IGNORED_GROUPS)
    }
    path = latest_intact(run)
    checkpoint = read_checkpoint(path) if path else {}
    if checkpoint:
        saved = {"name": checkpoint["zoo"]["model"], **checkpoint.get("hyper_parameters", {})}
        asked = {"name": model.registered_name, **model.hparams}
        changed |= differences(flatten(saved, "model."), flatten(asked, "model."), default)
    if changed:
        one = "model" if all(key.startswith("model.") for key in changed) else "training"
        raise ConfigError(
            f"resume={run.folder} cannot change the {one}, but {', '.join(sorted(changed))} differs. Remove it, or "
            f"start a new run. (Changeable are data.path, and of trainer {', '.join(CHANGEABLE)}.)"
        )
    if path is None:
        return None
    if checkpoint["zoo"]["spec"] != data.spec.to_dict():
        raise DataError(f"resume={run.folder}: the data have changed to {data.spec}. Restore the original data.")
    model.resize_buffers_like(checkpoint["state_dict"])
    check_state_dict(model, checkpoint["state_dict"], path)
    offsets = checkpoint.get("run")
    if offsets is not None and not valid_offsets(offsets):
        raise CheckpointError(f"{path} is damaged: invalid lengths of the log files. Start a new run.")
    batches = offsets["batches"] if offsets else model.optimizer_steps_to_batches(checkpoint["global_step"])
    if cfg.trainer.max_steps < batches:
        raise ConfigError(
            f"{run.folder} has had {counted(batches, 'batch')}, more than trainer.max_steps={cfg.trainer.max_steps}. "
            f"Increase trainer.max_steps."
        )
    return ResumePoint(path, batches, offsets)


def differences(before: dict[str, Any], now: dict[str, Any], default: dict[str, Any]) -> set[str]:
    """Settings that differ. A setting that the run did not have may have its default: it is newer than the run."""
    added = {key for key in now.keys() - before.keys() if key in default and now[key] == default[key]}
    return {key for key in (before.keys() | now.keys()) - added if before.get(key) != now.get(key)}


def defaults(kind: str, settings: dict[str, Any], prefix: str | None = None) -> dict[str, Any]:
    """Defaults of a registered object's settings and of its components' by dotted names: `model.backbone.d_model`."""
    prefix, found = prefix or kind, dict[str, Any]()
    if settings.get("name") not in registry.names(kind):  # data that are an object of Python
        return found
    for setting in registry.peek(kind, settings["name"]).settings:
        name, value = f"{prefix}.{setting.name}", settings.get(setting.name)
        if setting.part and isinstance(value, dict):
            found |= defaults(setting.part, value, name)
        else:
            found[name] = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return found


def valid_offsets(offsets: Any) -> bool:
    """Whether a value has the form of `zoo.runs.loggers.log_offsets`: numbers of batches and rows, and file sizes."""
    if not isinstance(offsets, dict) or not isinstance(offsets.get("events", {}), dict):
        return False
    sizes = [offsets.get("batches"), offsets.get("rows", 0), *offsets.get("events", {}).values()]
    return all(isinstance(n, int) and n >= 0 for n in sizes)


def prepare_resume(cfg: DictConfig, run: RunFolder, start: ResumePoint | None, overrides: Sequence[str] | None) -> None:
    """Rename damaged checkpoints, truncate the logs, and write the configuration with its overrides."""
    for path in (run.last, run.previous):
        if start and path != start.path and path.is_file() and integrity_error(path):
            os.replace(path, path.with_name(f"{path.name}.damaged"))
    if start is None:
        run.truncate_logs({})
    elif start.offsets is not None:
        run.truncate_logs(start.offsets)
    run.write_config(cfg, overrides)


def describe(start: ResumePoint | None, before: Any, now: int) -> dict[str, str]:
    """Lines for the console: the checkpoint, the end of a finished run, and a new length.

    Args:
        start: checkpoint.
        before: trainer.max_steps of the run so far.
        now: the present trainer.max_steps.
    """
    where = (
        f"{counted(start.batches, 'batch')}, {start.path.name}" if start else "the beginning: no checkpoint was written"
    )
    length = counted(now, "batch")
    lines = {"resumed": f"from {where}"}
    if start and start.batches >= now:
        lines["finished"] = f"all {now:,} batches are done. Set trainer.max_steps={2 * now} to train for longer."
    elif before != now:
        lines["length"] = f"{length} instead of {before:,}. Schedules of learning rates follow the new length."
    return lines
