"""Devices by name."""

import torch

from zoo.core.errors import HardwareError


def find_device(name: str | torch.device) -> torch.device:
    """Find a device of this machine.

    Args:
        name: cpu, cuda, cuda:1, mps ...; gpu is the available accelerator, and auto is it or the CPU.

    Raises:
        HardwareError: an unknown name, or a device that this machine does not have.
    """
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name in ("gpu", "auto") and (here or name == "auto"):
        return here or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        have = f"cpu or {here}" if here else "cpu"
        raise HardwareError(f"device={name}: not a device of this machine. Use {have}.") from None
    return device
