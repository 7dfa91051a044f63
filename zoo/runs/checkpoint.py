"""Restore models from runs and checkpoints: registered names and plain values only, never code."""

import logging
from pathlib import Path
from typing import Any

import torch

from zoo.core import registry
from zoo.core.errors import CheckpointError, ZooError
from zoo.core.spec import DataSpec
from zoo.io.checkpoint_file import integrity_error
from zoo.io.vetting import build_on_meta, check_state_dict, validate_contents, validate_file
from zoo.io.weights_file import unpack
from zoo.models.base import Model
from zoo.runs.folder import CHECKPOINTS, PUBLISHED, RunFolder

log = logging.getLogger(__name__)


def find_checkpoint(run: str | Path) -> Path:
    """Resolve a path to a checkpoint: the file itself, or the first intact one of best, last and previous in a run
    folder. In a folder of `zoo pull`, it is the file of weights.

    Damaged checkpoints are skipped with a warning.

    Raises:
        CheckpointError: there is no intact checkpoint.
    """
    path = Path(run)
    candidates = [path / name for name in (*CHECKPOINTS, PUBLISHED)] if path.is_dir() else [path]
    found = [candidate for candidate in candidates if candidate.is_file()]
    for candidate in found:
        if is_intact(candidate, warn=len(found) > 1):
            return candidate
    if found:
        files = " and ".join(map(str, found))
        raise CheckpointError(f"{files}: damaged: {integrity_error(found[0])}. Choose another run, or train again.")
    if path.is_dir():
        raise CheckpointError(
            f"{path}: contains no checkpoint ({' or '.join(CHECKPOINTS)}). Choose a run that has trained for longer."
        )
    raise CheckpointError(f"there is no run or checkpoint at {path}. List the runs by `ls runs/*`.")


def is_intact(path: Path, warn: bool = True) -> bool:
    """Return whether a checkpoint is intact, and warn if not that an earlier one is used.

    Exports have no digest; `read_checkpoint` validates them.
    """
    damage = None if path.suffix == ".safetensors" else integrity_error(path)
    if damage and warn:
        log.warning("%s is damaged (%s). Using the checkpoint before it.", path, damage)
    return damage is None


def latest_intact(run: RunFolder) -> Path | None:
    """Latest intact checkpoint of a run; None if none was ever written.

    Usually last.ckpt. A process that is killed while renaming leaves only previous.ckpt. best.ckpt, which has the same
    contents, is the last resort.

    Raises:
        CheckpointError: all are damaged.
    """
    found = [path for path in (run.last, run.previous, run.best) if path.is_file()]
    if run.last in found and is_intact(run.last):
        return run.last
    intact = [path for path in found if path != run.last and is_intact(path)]
    if intact:
        return max(intact, key=lambda path: batches_trained(read_checkpoint(path)))
    if found:
        raise CheckpointError(
            f"resume={run.folder}: all checkpoints are damaged: {integrity_error(found[0])}. Start a new run."
        )
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and validate a checkpoint, without executing code.

    Raises:
        CheckpointError: the file is damaged, holds other things than tensors and plain values, or is not from the zoo.
    """
    if path.suffix == ".safetensors":
        exported = unpack(path)
        validate_contents(exported, path)
        return exported
    damage = integrity_error(path)
    if damage:
        raise CheckpointError(f"{path}: damaged checkpoint: {damage}. Use another one.")
    validate_file(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: damaged checkpoint, or it contains code ({reason}). Use another one.") from None
    validate_contents(checkpoint, path)
    return checkpoint


def batches_trained(checkpoint: dict[str, Any]) -> int:
    """Number of training batches recorded in a checkpoint; 0 if missing."""
    marks = checkpoint.get("run")
    number = marks.get("batches") if isinstance(marks, dict) else None
    return number if isinstance(number, int) else 0


def restore_model(checkpoint: dict[str, Any], path: Path = Path("checkpoint")) -> Model:
    """Build the model that a checkpoint describes and load its weights, in eval mode.

    Raises:
        CheckpointError: the model cannot be built, or the weights do not fit; checked before large memory is allocated.
    """
    note, weights = checkpoint["zoo"], checkpoint["state_dict"]
    config = {**checkpoint.get("hyper_parameters", {}), "name": note["model"]}
    try:
        spec = DataSpec.from_dict(note["spec"])
        shapes = build_on_meta(lambda: registry.build("model", config, spec), most=2 * len(weights) + 100)
    except ZooError as error:
        raise CheckpointError(f"{path}: the model cannot be built: {error}") from None
    except Exception as error:  # values of other types and sizes than a constructor expects may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: the model cannot be built from its settings ({reason}). Use another checkpoint."
        ) from None
    if isinstance(shapes, Model):
        shapes.resize_buffers_like(weights)
        check_state_dict(shapes, weights, path)
    model: Model = registry.build("model", config, spec)
    model.load_state_dict(weights)
    model.restore_note(note)
    return model.eval()
