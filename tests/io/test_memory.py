"""Systems without `resource` and `fcntl`, such as Windows."""

import subprocess
import sys
from pathlib import Path

import zoo
from zoo.io.memory import peak_process_memory

CODE = """
import pkgutil, sys
import torch, pytorch_lightning, tensorboard, filelock, sklearn, torchvision
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
import zoo
for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
    if module.name not in ("zoo.__main__", "zoo.interop.lm_eval"):
        __import__(module.name)
from zoo.io.memory import peak_process_memory
assert peak_process_memory() is None
"""


def test_no_module_needs_what_windows_lacks() -> None:
    root = str(Path(zoo.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_peak_memory_is_in_bytes() -> None:
    assert 2**25 < (peak_process_memory() or 0) < 2**40
