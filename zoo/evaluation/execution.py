"""Execution of generated programs in separate processes with limits of time, memory and files.

The limits stop accidents: endless loops, full memory, full disks. They are not a boundary against an attacker: a
program has the rights of the user and may open connections. Use a container without secrets.
"""

import contextlib
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zoo.core.errors import ConfigError
from zoo.evaluation import program_child

OUTCOMES = ("passed", "wrong", "error", "syntax_error", "timeout", "out_of_memory", "crashed")


@dataclass(frozen=True)
class Limits:
    """Limits of one program.

    Args:
        seconds: of the clock; one more second of processor time is allowed.
        memory: bytes of address space.
        file_size: bytes of each file that it writes.
        files: files that are open at the same time.
    """

    seconds: float = 5.0
    memory: int = 512 << 20
    file_size: int = 1 << 20
    files: int = 32


def execute(source: str, limits: Limits | None = None) -> str:
    """Execute a Python program in a new process, and return one of `OUTCOMES`.

    The process has the standard library alone, an empty folder that is removed afterwards, no input and no output. A
    program passes if it reaches its end: `sys.exit(0)` is an error, and `os._exit(0)` a crash.

    Raises:
        ConfigError: an operating system without these limits.
    """
    if sys.platform != "linux":
        raise ConfigError(
            f"--execute: programs are limited on Linux only, and this is {sys.platform}. Use a container."
        )
    limits, word = limits or Limits(), secrets.token_hex(16)
    read, write = os.pipe()
    given = (write, math.ceil(limits.seconds) + 1, limits.memory, limits.file_size, limits.files)
    command = [sys.executable, "-S", "-s", "-P", "-B", str(Path(program_child.__file__)), *map(str, given)]
    with (
        tempfile.TemporaryDirectory(prefix="zoo-program-", ignore_cleanup_errors=True) as folder,
        open(read, "rb") as report,
    ):
        try:
            child = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={"HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
                pass_fds=(write,), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(write)
        late = False
        try:
            child.communicate(f"{word}\n{source}".encode(errors="replace"), timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of its processes have ended
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        if late or child.returncode == -signal.SIGXCPU:
            return "timeout"
        os.set_blocking(read, False)  # a process of the program may have left the group, and keep the pipe open
        told = (report.read() or b"").decode(errors="replace").split(" ")
    return told[1] if len(told) == 2 and told[0] == word and told[1] in OUTCOMES else "crashed"


def execute_all(sources: Sequence[str], limits: Limits | None = None) -> list[str]:
    """Execute programs, equal ones once, as many at a time as this process has processors."""
    distinct = list(dict.fromkeys(sources))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1) as pool:
        found = dict(zip(distinct, pool.map(lambda source: execute(source, limits), distinct), strict=True))
    return [found[source] for source in sources]
