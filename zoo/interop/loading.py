"""Load a trained model from a run, a checkpoint, an export or a Hugging Face folder."""

from pathlib import Path

import torch

from zoo.models.base import Model
from zoo.models.finetuning.base import FineTuned
from zoo.runs.checkpoint import find_checkpoint, read_checkpoint, restore_model


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """The trained model of a run folder or checkpoint, in eval mode.

    Args:
        run: a run folder (its best checkpoint is taken), a checkpoint, a .safetensors file of `zoo export`, or a
            folder in the Hugging Face format.
        device: where to put it.

    Raises:
        ZooError: no such file, not a checkpoint, or a model that is not registered here.
    """
    if (Path(run) / "config.json").is_file():
        from zoo.interop.huggingface import load

        return load.load(run).to(device)
    path = find_checkpoint(run)
    return restore_model(read_checkpoint(path), path).to(device)


def load_for_warm_start(place: str) -> Model:
    """The model of a run, a checkpoint or an export, what a stage of fine-tuning has made of its policy included.

    The one place where a path becomes a model: folders in other formats are to be told apart here.
    """
    model = load(place)
    return model.merged() if isinstance(model, FineTuned) else model
