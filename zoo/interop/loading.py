"""Load a trained model from a run, a checkpoint, an export or a Hugging Face folder."""

from pathlib import Path

import torch

from zoo.io.device import find_device
from zoo.models.abilities import SupportsMerging, supports
from zoo.models.base import Model
from zoo.runs.checkpoint import find_checkpoint, read_checkpoint, restore_model


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """Load the trained model of a run folder or checkpoint, in eval mode.

    Args:
        run: a run folder (its best checkpoint), a checkpoint, a .safetensors file of `zoo export`, or a folder in the
            Hugging Face format.
        device: cpu, cuda, cuda:1 ...; auto is the best of this machine.

    Raises:
        ZooError: no such file, not a checkpoint, a model that is not registered here, or no such device.
    """
    place = find_device(device)
    if (Path(run) / "config.json").is_file():
        from zoo.interop.huggingface import load

        return load.load(run).to(place)
    path = find_checkpoint(run)
    return restore_model(read_checkpoint(path), path).to(place)


def load_for_warm_start(place: str) -> Model:
    """Load the model of a run, a checkpoint or an export; of a fine-tuned one, the merged model that it contains."""
    model = load(place)
    return model.merged() if supports(model, SupportsMerging) else model
