"""In what precision a model trains faster here: measured once on its own training step, and remembered.

bfloat16 halves the step of a transformer on one processor and doubles that of a small network on the next.
"""

import copy
import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zoo.cache import cache_root
from zoo.models.base import Batch, GenerativeModel
from zoo.run import hardware
from zoo.whole import write_text

Precision = Literal["bf16-mixed", "32-true"]
GAIN = 1.05  # how much faster bfloat16 must be: it costs digits
ROUNDS = 5


def fastest(model: GenerativeModel, batch: Batch, device: torch.device) -> Precision:
    """bf16-mixed where a step in it is faster, else 32-true.

    Remembered in `$ZOO_CACHE`, else `~/.cache/zoo`, for this machine, this version of torch and layers of these kinds
    and sizes.
    """
    if not has_bfloat16(device):
        return "32-true"
    file = cache_root() / "precision.json"
    known, name = read(file), key(model, batch, device)
    if name not in known:
        single, half = timed(model, batch, device)
        known = {**read(file), name: {"32-true": single, "bf16-mixed": half}}
        write_text(file, json.dumps(known, indent=1) + "\n")
    return "bf16-mixed" if known[name]["32-true"] > GAIN * known[name]["bf16-mixed"] else "32-true"


def read(file: Path) -> dict[str, dict[str, float]]:
    """What was measured before; a file that says nothing sensible is measured anew."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(found, dict) and all(
        isinstance(row, dict) and all(isinstance(row.get(k), float) for k in ("32-true", "bf16-mixed"))
        for row in found.values()
    )
    return found if sound else {}


def key(model: nn.Module, batch: Batch, device: torch.device) -> str:
    """The machine, the version and the layers, in one line."""
    layers = [(type(m).__name__, [tuple(p.shape) for p in m.parameters(recurse=False)]) for m in model.modules()]
    sizes = (layers, tuple(batch[0].shape), batch[0].dtype)
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]
    kinds = sorted({kind for kind, shapes in layers if shapes})
    return f"{hardware()} | {device.type} | torch {torch.__version__} | {'+'.join(kinds)} {digest}"


def has_bfloat16(device: torch.device) -> bool:
    """Does the device multiply bfloat16 matrices at all, other than by emulation, which is many times slower?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def timed(model: GenerativeModel, batch: Batch, device: torch.device) -> tuple[float, float]:
    """Seconds of a step, in single and in half precision: medians of several in turn, on a copy of the model."""
    twin = copy.deepcopy(model).to(device).train()
    x, y = (part.to(device) for part in batch)
    # Of a processor the time that this process has had: it does not tell what else the machine was doing.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    spent: dict[bool, list[float]] = {False: [], True: []}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        for _ in range(ROUNDS + 1):  # the first makes what is made once
            for half, seconds in spent.items():
                begun = clock()
                step(twin, (x, y), device, half)
                seconds.append(clock() - begun)
    return statistics.median(spent[False][1:]), statistics.median(spent[True][1:])


def step(model: GenerativeModel, batch: Batch, device: torch.device, half: bool) -> None:
    """A loss and its gradients."""
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        terms: dict[str, Any] = model.loss(batch)
    losses = [term for name, term in terms.items() if name.startswith("loss") and term.requires_grad]
    torch.stack([loss.float() for loss in losses]).sum().backward()
    model.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
