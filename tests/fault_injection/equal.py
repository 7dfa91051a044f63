"""Bit for bit: what two checkpoints differ in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The places where two nested structures of tensors and plain values differ."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return [] if same else [where]
    if type(a) is not type(b):
        return [f"{where}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, Mapping):
        missing = [f"{where}.{key} (in one only)" for key in a.keys() ^ b.keys()]
        return missing + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, Sequence) and not isinstance(a, (str, bytes)):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} long"]
        return [d for n, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{where}[{n}]")]
    return [] if a == b or (a != a and b != b) else [f"{where}: {a} and {b}"]


# Lightning's epochs, which the zoo does not count in, and where in the event files a run stood.
LEFT_OUT = ("loops", "epoch", "run")


def unequal(one: Path, two: Path) -> list[str]:
    """Where two checkpoints differ: weights, averages, optimizers, schedules, random states, the best value so far."""
    a, b = ({k: v for k, v in torch.load(p, weights_only=True).items() if k not in LEFT_OUT} for p in (one, two))
    assert {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "zoo"} <= a.keys()
    return differences(a, b)
