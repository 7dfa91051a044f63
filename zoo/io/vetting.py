"""Checkpoints that anybody may have written: what is in the file, and whether it fits the model that it names.

`torch.load(weights_only=True)` runs no code. It would still unfold a small file to terabytes, or build a model of any
size that the file asks for; here both are compared with the size of the file first.
"""

import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from zoo.core.errors import CheckpointError, HardwareError, ZooError

# What tensors and plain values are made of in a checkpoint; a pickle that names anything else is not ours.
KNOWN = re.compile(
    r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Size|device|\w*(float|int)\d+\w*|bool)"
    r"|collections (OrderedDict|Counter)|builtins (set|complex)"
)
PLAIN = (str, int, float, bool, complex, type(None), torch.Size, torch.device, torch.dtype)
VALUES = 300_000  # in a checkpoint, nested ones included
SLACK = 2**26  # bytes that a model may hold beside what its checkpoint does, such as the angles of positions
PARAMETERS = 10_000  # tensors of a model
REPEATED = 4  # times that tensors may share memory on average: tied weights


def validate_file(path: Path) -> None:
    """Look into a checkpoint before it is read.

    Raises:
        CheckpointError: not one of torch's archives, compressed (nothing that torch writes is), or with names of code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(e.compress_type for e in entries) or sum(e.file_size for e in entries) > path.stat().st_size:
                raise CheckpointError(
                    f"{path} is refused: it unfolds to more than it holds, as no checkpoint of torch does."
                )
            names = [e for e in entries if e.filename.endswith("/data.pkl")]
            if len(names) != 1:
                raise CheckpointError(
                    f"{path} is no checkpoint: as an archive it holds {len(names)} tables of contents."
                )
            table = archive.read(names[0])
        for code, argument, _ in pickletools.genops(table):
            if code.name == "GLOBAL" and not KNOWN.fullmatch(str(argument)):
                named = str(argument).replace(" ", ".")
                raise CheckpointError(
                    f"{path} is refused: a checkpoint holds tensors and plain values, and it names {named}."
                )
    except ZooError:
        raise
    except Exception as error:  # a damaged archive or table may raise anything
        raise CheckpointError(f"{path} cannot be read as a checkpoint: it is damaged ({_said(error)}).") from error


def validate_contents(checkpoint: Any, path: Path) -> None:
    """Check that what was read is a checkpoint of the zoo, of plain values, and no larger than its file.

    Raises:
        CheckpointError: it is not; it says what is wrong.
    """
    if not isinstance(checkpoint, dict) or "zoo" not in checkpoint:
        raise CheckpointError(f"{path} was not written by the zoo: it does not say which model it holds.")
    note, weights = checkpoint.get("zoo"), checkpoint.get("state_dict")
    settings = checkpoint.get("hyper_parameters", {})  # a model without any has none saved
    good = isinstance(note, dict) and isinstance(note.get("model"), str) and isinstance(note.get("spec"), dict)
    good = good and isinstance(settings, dict) and all(isinstance(name, str) for name in settings)
    if not good or not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise CheckpointError(f"{path} is damaged: a checkpoint holds a model's name, its settings and its weights.")
    below, values, size = [checkpoint], 0, 0
    while below:
        value = below.pop()
        values += 1
        if isinstance(value, Mapping):
            below += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set)):
            below += value
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or nbytes(value) > value.untyped_storage().nbytes():
                raise CheckpointError(f"{path} is refused: it holds a tensor {tuple(value.shape)} without its numbers.")
            size += nbytes(value)
        elif not isinstance(value, PLAIN):
            raise CheckpointError(f"{path} is refused: it holds a {type(value).__name__}, which is no plain value.")
        if values > VALUES or len(below) > VALUES or size > REPEATED * path.stat().st_size:
            raise CheckpointError(f"{path} is refused: it unfolds to many times what it holds.")


def build_on_meta(build: Callable[[], nn.Module], most: int = PARAMETERS) -> nn.Module | None:
    """A model without its numbers: shapes only, on torch's meta device; None where a constructor needs numbers.

    Args:
        build: makes the model.
        most: parameters (and, twentyfold, modules) at which building is given up.

    Raises:
        CheckpointError: more than that.
        Exception: whatever the constructor raises.
    """
    left = {"parameters": most, "modules": 20 * most}

    def count(what: str) -> None:
        left[what] -= 1
        if left[what] < 0:
            raise CheckpointError(
                f"these settings ask for a model of more than {most:,} weight tensors: choose smaller ones."
            )

    hooks = [
        register_module_parameter_registration_hook(lambda *_: count("parameters")),
        register_module_module_registration_hook(lambda *_: count("modules")),
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" in str(error):
            return None
        raise
    finally:
        for hook in hooks:
            hook.remove()


def state_dict_mismatches(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Which weights are missing, left over or of another shape: up to three of them, or nothing."""
    wrong = [f"{name} is missing" for name in wanted.keys() - weights.keys()]
    wrong += [f"{name} is left over" for name in weights.keys() - wanted.keys()]
    wrong += [
        f"{name} is {_shape(weights[name])} and not {_shape(wanted[name])}"
        for name in wanted.keys() & weights.keys()
        if weights[name].shape != wanted[name].shape
    ]
    return "; ".join(sorted(wrong)[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")


def check_state_dict(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights are those of a model, which may be an outline.

    Raises:
        CheckpointError: a weight is missing, left over or of another shape, or the model would need far more memory.
    """
    if wrong := state_dict_mismatches(model.state_dict(), weights):
        raise CheckpointError(f"the weights in {path} do not fit the model that it names: {wrong}.")
    if model_bytes(model) > 2 * sum(map(nbytes, weights.values())) + SLACK:
        raise CheckpointError(
            f"{path} is refused: its model would take {model_bytes(model) / 2**30:,.0f} GB, its weights do not."
        )


def check_fits_in_memory(build: Callable[[], nn.Module]) -> None:
    """Check that a model fits into this machine's memory, before any of it is taken.

    Raises:
        HardwareError: it does not.
    """
    try:
        model = build_on_meta(build)
    except ZooError:
        raise
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes that not even torch can count
        raise HardwareError(f"a model of these settings is too large for any machine ({_said(error)}).") from error
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    if model is not None and have and model_bytes(model) > have:
        gigabytes = f"{model_bytes(model) / 2**30:,.0f} GB, and this machine has {have / 2**30:,.0f}"
        raise HardwareError(f"a model of these settings takes {gigabytes}: choose smaller ones.")


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(map(nbytes, [*model.parameters(), *model.buffers()]))


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers, were each stored once."""
    return tensor.numel() * tensor.element_size()


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
