"""Versions, hardware and source commit of a run."""

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

DISTRIBUTION = "generative-zoo"  # `zoo` on the package index is another project


def provenance() -> dict[str, str]:
    """Return package versions, platform, hardware and source commit."""
    packages = {"zoo": DISTRIBUTION, **{name: name for name in ("torch", "pytorch-lightning", "hydra-core")}}
    found = {name: installed_version(package) for name, package in packages.items()}
    found |= {"python": platform.python_version(), "platform": platform.platform(), "hardware": hardware()}
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():  # absent in an installed wheel
        command = ["git", "describe", "--always", "--dirty"]
        found["commit"] = subprocess.run(command, cwd=checkout, capture_output=True, text=True).stdout.strip()
    return found


def installed_version(package: str) -> str:
    """Version of a package; a checkout that is not installed does not have one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def hardware() -> str:
    """Description of the hardware, such as "2 cores of AMD EPYC", with the GPU if there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    cores = f"{torch.get_num_threads()} cores" if torch.get_num_threads() > 1 else "1 core"
    found = f"{cores} of {named[1].strip() if named else platform.processor() or platform.machine()}"
    return f"{found}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else found
