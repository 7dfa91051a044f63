"""Cost of a computation: floating-point operations, memory, and the machine's peak speed."""

import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zoo.io.memory import peak_process_memory

_MEASURED_RUN = "the second time"
_aten = torch.ops.aten
# torch lacks formulas for CPU attention; the GPU ones use the same leading arguments.
FORMULAS = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations of matrix products, convolutions and attention (causal counts as full).

    torch's counter uses module hooks, which do not support double backward.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def matmul(device: torch.device, dtype: torch.dtype, side: int | None = None, seconds: float = 0.3) -> float:
    """Peak operations per second of a square matrix product: the best of the runs that fit into the time."""
    side = side or (8192 if device.type == "cuda" else 1024)
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def memory(work: Callable[[], Any], device: torch.device) -> int:
    """Peak bytes of tensors that a call allocates, beyond those allocated before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()  # warm-up, so that the second run also frees memory
        with torch.profiler.record_function(_MEASURED_RUN):
            work()
    events = profile.profiler.kineto_results.events()
    start = next(event.start_ns() for event in events if event.name() == _MEASURED_RUN)
    changes = sorted(
        (e for e in events if e.name() == "[memory]" and e.start_ns() >= start), key=lambda e: e.start_ns()
    )
    return max(accumulate((event.nbytes() for event in changes), initial=0))


def time_breakdown(work: Callable[[], Any], device: torch.device, n: int = 8) -> dict[str, float]:
    """Share of time of the slowest operations: GPU time on a GPU, else CPU time."""
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if device.type == "cuda" else [])]) as profile:
        work()
    elapsed = {
        event.key.removeprefix("aten::"): event.self_device_time_total
        if device.type == "cuda"
        else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    total = sum(elapsed.values()) or 1.0
    return {name: elapsed[name] / total for name in sorted(elapsed, key=lambda name: -elapsed[name])[:n]}


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of tensors on a GPU, of the process on a CPU; 0 where the system does not report them."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_process_memory() or 0
