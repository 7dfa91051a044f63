"""Load a trained model from a run, a checkpoint, an export or a Hugging Face folder."""

from pathlib import Path

import torch

from zoo.hub.pretrained import resolve
from zoo.io.device import find_device
from zoo.models.abilities import SupportsMerging
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.checkpoint import find_checkpoint, read_checkpoint, restore_model


def load(run: str | Path, device: str | torch.device = "cpu") -> Model:
    """Load the trained model of a run folder or checkpoint, in eval mode.

    Args:
        run: a run folder (its best checkpoint), a checkpoint, a .safetensors file of `zoo export`, or a folder in the
            format of Hugging Face or sentence-transformers. Or an adapter folder of peft, whose base model is local.
            Or a pretrained model by name, or the address of a published one; see `zoo.hub.pretrained.resolve`.
        device: cpu, cuda, cuda:1 ...; auto is the best of this machine.

    Raises:
        ZooError: no such file, not a checkpoint, a model that is not registered here, or no such device.
    """
    run = resolve(run)
    place = find_device(device)
    if (run / "adapter_config.json").is_file():
        from zoo.interop.huggingface import peft_adapter

        return peft_adapter.load(run).to(place)
    if any((run / name).is_file() for name in ("config.json", "modules.json")):
        from zoo.interop.huggingface import load

        return load.load(run).to(place)
    path = find_checkpoint(run)
    return restore_model(read_checkpoint(path), path).to(place)


def weights_files(run: Path) -> list[Path]:
    """Files of weights of an export or a folder in the format of Hugging Face or sentence-transformers."""
    for folder in (run, run / "0_Transformer"):
        if found := sorted(folder.glob("model*.safetensors")):
            return found
    return []


def load_for_warm_start(place: str) -> Model:
    """Load the model of a run, a checkpoint or an export; of a fine-tuned one, the merged model that it contains."""
    model = load(place)
    return model.merged() if supports(model, SupportsMerging) else model
