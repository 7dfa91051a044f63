"""A model as one safetensors file: weights and JSON metadata, without code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.core.errors import CheckpointError


def pack(state: Mapping[str, Tensor], note: Mapping[str, Any]) -> bytes:
    """Serialise weights and metadata; tied weights are written once. Equal models give equal bytes.

    Args:
        state: a `state_dict`.
        note: metadata of plain values, with "model", "spec" and "hyper_parameters" as in a checkpoint.
    """
    unique: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name, tensor in state.items():
        storage = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if (first := unique.setdefault(storage, name)) != name:
            tied[name] = first
    tensors = {name: state[name].detach().cpu().clone().contiguous() for name in unique.values()}
    return save(tensors, {"zoo": json.dumps({**note, "tied": tied})})  # one key: safetensors does not keep an order


def unpack(path: Path) -> dict[str, Any]:
    """Read a file of `pack` as a checkpoint: "zoo", "hyper_parameters", "state_dict", and "run" with the batches.

    Raises:
        CheckpointError: the file is damaged, or was not written by the zoo.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get("zoo")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged safetensors file ({error}). Export the model again.") from None
    try:
        note = json.loads(metadata or "{}")
    except ValueError:
        note = {}
    if not isinstance(note, dict) or not {"model", "spec", "hyper_parameters", "tied"} <= note.keys():
        raise CheckpointError(
            f"{path}: not written by the zoo; the name of the model is missing. Write one by `zoo export`."
        )
    state |= {name: state[first] for name, first in note["tied"].items()}
    run = {"batches": note.get("batches", 0)}
    return {"zoo": note, "hyper_parameters": note["hyper_parameters"], "state_dict": state, "run": run}
