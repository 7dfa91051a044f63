"""Versions, hardware and source commit of a run."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def provenance() -> dict[str, str]:
    """Return package versions, platform, hardware and source commit."""
    packages = ("zoo", "torch", "pytorch-lightning", "hydra-core")
    found = {name: version(name) for name in packages}
    found |= {"python": platform.python_version(), "platform": platform.platform(), "hardware": hardware()}
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():  # absent in an installed wheel
        command = ["git", "describe", "--always", "--dirty"]
        found["commit"] = subprocess.run(command, cwd=checkout, capture_output=True, text=True).stdout.strip()
    return found


def hardware() -> str:
    """Description of the hardware, such as "2 cores of AMD EPYC", with the GPU if there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    cores = f"{torch.get_num_threads()} cores" if torch.get_num_threads() > 1 else "1 core"
    found = f"{cores} of {named[1].strip() if named else platform.processor() or platform.machine()}"
    return f"{found}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else found
