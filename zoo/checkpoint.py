"""From a run or a checkpoint back to the model: registered names and plain values only, never code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from zoo import registry
from zoo.errors import ZooError
from zoo.models.base import GenerativeModel
from zoo.run import CHECKPOINTS
from zoo.spec import DataSpec
from zoo.tensors import unpack


def find(run: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the best (else last) of a run folder.

    Raises:
        ZooError: there is none.
    """
    path = Path(run)
    candidates = [path / name for name in CHECKPOINTS] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise ZooError(
            f"{path} holds no checkpoint ({' or '.join(CHECKPOINTS)}): it is not a run, or it ended too early."
        )
    raise ZooError(f"there is no run or checkpoint at {path}: `ls runs/*` shows what there is.")


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's contents; nothing in the file is executed.

    Raises:
        ZooError: the file is damaged, holds anything but tensors and plain values, or is not of the zoo.
    """
    if path.suffix == ".safetensors":
        return unpack(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ZooError(f"{path} cannot be read as a checkpoint: it is damaged or holds code ({reason}).") from error
    if not isinstance(checkpoint, dict) or "zoo" not in checkpoint:
        raise ZooError(f"{path} was not written by the zoo: it does not say which model it holds.")
    return checkpoint


def load(run: str | Path, device: str | torch.device = "cpu") -> GenerativeModel:
    """The trained model of a run folder or checkpoint, in eval mode.

    Args:
        run: a run folder (its best checkpoint is taken), a checkpoint or a .safetensors file of `zoo export`.
        device: where to put it.

    Raises:
        ZooError: no such file, not a checkpoint, or a model that is not registered here.
    """
    path = find(run)
    return restore(read(path)).to(device)


def restore(checkpoint: dict[str, Any]) -> GenerativeModel:
    """Build the model that a checkpoint describes and give it its weights, in eval mode."""
    note = checkpoint["zoo"]
    config = {"name": note["model"], **checkpoint.get("hyper_parameters", {})}
    model: GenerativeModel = registry.build("model", config, DataSpec.from_dict(note["spec"]))
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()
