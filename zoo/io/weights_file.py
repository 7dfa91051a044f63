"""A model as one safetensors file: weights and JSON metadata, without code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.core.errors import CheckpointError

INTEGERS = {str(kind): kind for kind in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)}


def pack(state: Mapping[str, Tensor], note: Mapping[str, Any], *, narrow: bool = False) -> bytes:
    """Serialise weights and metadata; tied weights are written once. Equal models give equal bytes.

    Args:
        state: a `state_dict`.
        note: metadata of plain values, with "model", "spec" and "hyper_parameters" as in a checkpoint.
        narrow: store integers in the smallest type that holds them; `unpack` returns their own type.
    """
    unique: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name, tensor in state.items():
        storage = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if (first := unique.setdefault(storage, name)) != name:
            tied[name] = first
    tensors = {name: state[name].detach().cpu().clone().contiguous() for name in unique.values()}
    about: dict[str, Any] = {**note, "tied": tied}
    if narrow:
        small = {name: narrowed(x) for name, x in tensors.items()}
        about["integers"] = {name: str(x.dtype) for name, x in tensors.items() if x.dtype != small[name].dtype}
        tensors = small
    return save(tensors, {"zoo": json.dumps(about)})  # one key: safetensors does not keep an order


def narrowed(x: Tensor) -> Tensor:
    """Integers in the smallest type that holds them; other tensors as they are."""
    if str(x.dtype) not in INTEGERS or not x.numel():
        return x
    low, high = int(x.min()), int(x.max())
    fits = (kind for kind in INTEGERS.values() if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)
    return x.to(next(fits))


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
    integers = note.get("integers", {})
    if not isinstance(integers, dict) or not all(n in state and k in tuple(INTEGERS) for n, k in integers.items()):
        raise CheckpointError(f"{path}: damaged, not the types of its integers. Export the model again.")
    state |= {name: state[name].to(INTEGERS[kind]) for name, kind in integers.items()}
    state |= {name: state[first] for name, first in note["tied"].items()}
    run = {"batches": note.get("batches", 0)}
    return {"zoo": note, "hyper_parameters": note["hyper_parameters"], "state_dict": state, "run": run}
