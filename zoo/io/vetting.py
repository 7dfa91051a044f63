"""Validate untrusted checkpoints: contents, size, and agreement with the model they name.

`torch.load(weights_only=True)` does not run code, but a small file could still expand to terabytes, or request a model
of any size. Both are compared with the file size first.
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

# Globals of tensors and plain values in a checkpoint; pickles with any other are rejected.
ALLOWED_GLOBALS = re.compile(
    r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Size|device|\w*(float|int)\d+\w*|bool)"
    r"|collections (OrderedDict|Counter)|builtins (set|complex)"
)
PLAIN_TYPES = (str, int, float, bool, complex, type(None), torch.Size, torch.device, torch.dtype)
MAX_VALUES = 300_000  # in a checkpoint, including nested ones
MAX_EXTRA_BYTES = 2**26  # bytes of buffers that are not in the checkpoint, such as rotary angles
MAX_PARAMETERS = 10_000  # tensors per model
MAX_SHARING = 4  # average number of tensors per storage: tied weights


def validate_file(path: Path) -> None:
    """Check a checkpoint file before it is loaded.

    Raises:
        CheckpointError: not an archive of torch, compressed (torch does not compress), or with references to code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(e.compress_type for e in entries) or sum(e.file_size for e in entries) > path.stat().st_size:
                raise CheckpointError(f"{path}: expands to more than its size. Use a checkpoint written by torch.")
            names = [e for e in entries if e.filename.endswith("/data.pkl")]
            if len(names) != 1:
                raise CheckpointError(
                    f"{path}: not a checkpoint; it has {len(names)} data.pkl entries. Use one written by torch."
                )
            table = archive.read(names[0])
        for code, argument, _ in pickletools.genops(table):
            if code.name == "GLOBAL" and not ALLOWED_GLOBALS.fullmatch(str(argument)):
                reference = str(argument).replace(" ", ".")
                raise CheckpointError(
                    f"{path}: refers to {reference}. A checkpoint may hold only tensors and plain values."
                )
    except ZooError:
        raise
    except Exception as error:  # a damaged archive or table may raise anything
        raise CheckpointError(f"{path}: damaged checkpoint ({_first_line(error)}). Use another one.") from None


def validate_contents(checkpoint: Any, path: Path) -> None:
    """Check that loaded contents are a checkpoint of plain values, and not larger than the file.

    Raises:
        CheckpointError: it is not; the message names the problem.
    """
    if not isinstance(checkpoint, dict) or "zoo" not in checkpoint:
        raise CheckpointError(
            f"{path}: not written by the zoo; the name of the model is missing. Use a checkpoint of a zoo run."
        )
    note, weights = checkpoint.get("zoo"), checkpoint.get("state_dict")
    settings = checkpoint.get("hyper_parameters", {})  # absent for models without settings
    good = isinstance(note, dict) and isinstance(note.get("model"), str) and isinstance(note.get("spec"), dict)
    good = good and isinstance(settings, dict) and all(isinstance(name, str) for name in settings)
    if not good or not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise CheckpointError(f"{path}: damaged; model name, settings or weights are missing. Use another checkpoint.")
    pending, values, size = [checkpoint], 0, 0
    while pending:
        value = pending.pop()
        values += 1
        if isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set)):
            pending += value
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or nbytes(value) > value.untyped_storage().nbytes():
                raise CheckpointError(
                    f"{path}: holds a tensor {tuple(value.shape)} without storage. Use another checkpoint."
                )
            size += nbytes(value)
        elif not isinstance(value, PLAIN_TYPES):
            raise CheckpointError(
                f"{path}: unsupported type {type(value).__name__}. A checkpoint may hold only tensors and plain values."
            )
        if values > MAX_VALUES or len(pending) > MAX_VALUES or size > MAX_SHARING * path.stat().st_size:
            raise CheckpointError(f"{path}: expands to many times its size. Use another checkpoint.")


def build_on_meta(build: Callable[[], nn.Module], most: int = MAX_PARAMETERS) -> nn.Module | None:
    """Build a model on torch's meta device, with shapes but without numbers; None if a constructor needs numbers.

    Args:
        build: makes the model.
        most: maximum number of parameters; twenty times as many modules are allowed.

    Raises:
        CheckpointError: too many parameters or modules.
        Exception: anything that the constructor raises.
    """
    remaining = {"parameters": most, "modules": 20 * most}

    def count(what: str) -> None:
        remaining[what] -= 1
        if remaining[what] < 0:
            raise CheckpointError(f"model: more than {most:,} weight tensors. Choose smaller settings.")

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


def state_dict_mismatches(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Describe up to three weights that are missing, unexpected or of another shape; empty if there are none."""
    wrong = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    wrong += [f"{name} is unexpected" for name in weights.keys() - expected.keys()]
    wrong += [
        f"{name} is {_shape(weights[name])} instead of {_shape(expected[name])}"
        for name in expected.keys() & weights.keys()
        if weights[name].shape != expected[name].shape
    ]
    return "; ".join(sorted(wrong)[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")


def check_state_dict(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights fit a model, which may be on the meta device.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape, or the model needs far more memory.
    """
    if wrong := state_dict_mismatches(model.state_dict(), weights):
        raise CheckpointError(f"{path}: the weights do not fit the model: {wrong}. Use another checkpoint.")
    if model_bytes(model) > 2 * sum(map(nbytes, weights.values())) + MAX_EXTRA_BYTES:
        raise CheckpointError(
            f"{path}: the model needs {model_bytes(model) / 2**30:,.0f} GB, its weights do not. Use another checkpoint."
        )


def check_fits_in_memory(build: Callable[[], nn.Module]) -> nn.Module | None:
    """Check that a model fits into this machine's memory, before it is allocated.

    Returns:
        The model of `build_on_meta`.

    Raises:
        HardwareError: it does not fit.
    """
    try:
        model = build_on_meta(build)
    except ZooError:
        raise
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond torch's integers
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            raise  # a fault in the code of a network
        raise HardwareError("model: too large for any machine. Choose smaller settings.") from None
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    if model is not None and have and model_bytes(model) > have:
        gigabytes = f"{model_bytes(model) / 2**30:,.0f} GB, and this machine has {have / 2**30:,.0f}"
        raise HardwareError(f"model: takes {gigabytes}. Choose smaller settings.")
    return model


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(map(nbytes, [*model.parameters(), *model.buffers()]))


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor, if every element were stored once."""
    return tensor.numel() * tensor.element_size()


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
