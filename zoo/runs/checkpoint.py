"""From a run or a checkpoint back to the model: registered names and plain values only, never code."""

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
from zoo.models.base import GenerativeModel
from zoo.runs.folder import CHECKPOINTS, RunFolder

log = logging.getLogger(__name__)


def find_checkpoint(run: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best of a run folder (else the last, else the one before it).

    One that is damaged is passed over, and said to be.

    Raises:
        CheckpointError: there is none, or none that is whole.
    """
    path = Path(run)
    candidates = [path / name for name in CHECKPOINTS] if path.is_dir() else [path]
    there = [candidate for candidate in candidates if candidate.is_file()]
    for candidate in there:
        if is_intact(candidate):
            return candidate
    if there:
        raise CheckpointError(f"{' and '.join(map(str, there))} cannot be read: {integrity_error(there[0])}.")
    if path.is_dir():
        raise CheckpointError(
            f"{path} holds no checkpoint ({' or '.join(CHECKPOINTS)}): it is not a run, or it ended too early."
        )
    raise CheckpointError(f"there is no run or checkpoint at {path}: `ls runs/*` shows what there is.")


def is_intact(path: Path) -> bool:
    """Is the checkpoint as it was written? If not, it is said aloud. An export bears no seal: `read` looks into it."""
    wrong = None if path.suffix == ".safetensors" else integrity_error(path)
    if wrong:
        log.warning("%s is damaged (%s): looking for the checkpoint before it.", path, wrong)
    return wrong is None


def latest_intact(run: RunFolder) -> Path | None:
    """The newest checkpoint of a run that is whole; None where no checkpoint was ever written.

    Usually last.ckpt. A process that is killed while it renames files leaves previous.ckpt only; best.ckpt, which holds
    everything that the others do, is the last resort.

    Raises:
        CheckpointError: all are damaged.
    """
    there = [path for path in (run.last, run.previous, run.best) if path.is_file()]
    if run.last in there and is_intact(run.last):
        return run.last
    rest = [path for path in there if path != run.last and is_intact(path)]
    if rest:
        return max(rest, key=lambda path: batches_trained(read_checkpoint(path)))
    if there:
        raise CheckpointError(
            f"{run.folder} cannot be resumed: its checkpoints are all damaged, {integrity_error(there[0])}."
        )
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents; nothing in the file is executed.

    Raises:
        CheckpointError: the file is damaged, holds anything but tensors and plain values, or is not of the zoo.
    """
    if path.suffix == ".safetensors":
        exported = unpack(path)
        validate_contents(exported, path)
        return exported
    wrong = integrity_error(path)
    if wrong:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {wrong}.")
    validate_file(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is damaged or holds code ({reason})."
        ) from error
    validate_contents(checkpoint, path)
    return checkpoint


def batches_trained(checkpoint: dict[str, Any]) -> int:
    """Batches that a checkpoint has been trained on; 0 where it does not say."""
    marks = checkpoint.get("run")
    number = marks.get("batches") if isinstance(marks, dict) else None
    return number if isinstance(number, int) else 0


def restore_model(checkpoint: dict[str, Any], path: Path = Path("checkpoint")) -> GenerativeModel:
    """Build the model that a checkpoint describes and give it its weights, in eval mode.

    Raises:
        CheckpointError: it describes no model, or another one than its weights are of; nothing large was allocated.
    """
    note, weights = checkpoint["zoo"], checkpoint["state_dict"]
    config = {**checkpoint.get("hyper_parameters", {}), "name": note["model"]}
    try:
        spec = DataSpec.from_dict(note["spec"])
        shapes = build_on_meta(lambda: registry.build("model", config, spec), most=2 * len(weights) + 100)
    except ZooError as error:
        raise CheckpointError(f"{path} holds a model that cannot be built: {error}") from error
    except Exception as error:  # values of other types and sizes than a constructor expects may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} holds settings that no model can be built from ({reason}): it is damaged."
        ) from error
    if isinstance(shapes, GenerativeModel):
        shapes.accommodate(weights)
        check_state_dict(shapes, weights, path)
    model: GenerativeModel = registry.build("model", config, spec)
    model.load_state_dict(weights)
    return model.eval()
