"""Memory of this process and of its device."""

import os
import sys
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_process_memory() -> int | None:
    """Largest resident memory so far in bytes; None on systems without `getrusage`, such as Windows."""
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can still be allocated, within the limit of a container; None on systems that do not report them.

    Args:
        device: where.
        root: of the file system.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = []
    if (file := root / "proc/meminfo").is_file():
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        found.append(sum(int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree") if key in lines))
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    group = root / "sys/fs/cgroup"
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():
        found.append(max(int(most) - int(used.read_text()), 0))
    return min(found, default=None)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether the device or the machine ran out of memory, also as the cause of another error."""
    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
