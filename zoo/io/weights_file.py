"""A model as one safetensors file: its weights, and a note in JSON that says what they are; no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.core.errors import CheckpointError


def pack(state: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """The file's contents. Names that share one tensor (tied weights) are written once.

    Args:
        state: a `state_dict`.
        note: "model", "spec" and "hyper_parameters", as in a checkpoint, and whatever else is known; plain values.
    """
    kept: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if (first := kept.setdefault(place, name)) != name:
            tied[name] = first
    tensors = {name: state[name].detach().cpu().clone().contiguous() for name in kept.values()}
    return save(tensors, {"format": "pt", "zoo": json.dumps({**note, "tied": tied})})


def unpack(path: Path) -> dict[str, Any]:
    """What `pack` wrote, in the form of a checkpoint: "zoo", "hyper_parameters" and "state_dict".

    Raises:
        CheckpointError: the file is damaged, or was not written by the zoo.
    """
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("zoo")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: it is damaged ({error}).") from error
    try:
        note = json.loads(said or "{}")
    except ValueError:
        note = {}
    if not isinstance(note, dict) or not {"model", "spec", "hyper_parameters", "tied"} <= note.keys():
        raise CheckpointError(f"{path} was not written by the zoo: it does not say which model it holds.")
    state |= {name: state[first] for name, first in note["tied"].items()}
    return {"zoo": note, "hyper_parameters": note["hyper_parameters"], "state_dict": state}
