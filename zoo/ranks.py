"""The processes of a distributed run on one machine: where one dies the others end too, and say why.

Lightning starts all but the first with the same command. It ends the first by SIGKILL, without a word, when one of the
others fails, and lets the others run on when the first is gone. (Across machines torchrun or SLURM looks after them.)
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as L
import torch.distributed as dist
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from zoo.errors import ZooError

PARENT = "ZOO_PARENT"  # environment variable: the process that started this one
LOOK = 0.5  # seconds between two looks at the others
GRACE = 15.0  # seconds in which a process may end by itself, and say more than that another one died


class Launcher(_SubprocessScriptLauncher):
    """Lightning's launcher, with a thread in every process that ends it when another one dies.

    Args:
        like: the launcher to take the place of.
        advice: what to do now, said after which process died.
    """

    def __init__(self, like: _SubprocessScriptLauncher, advice: Callable[[], str]) -> None:
        super().__init__(like.cluster_environment, like.num_processes, like.num_nodes)
        self.advice, self.done = advice, threading.Event()
        self.rank = int(os.environ.get("LOCAL_RANK", 0))
        self.parent = int(os.environ.get(PARENT, 0)) if self.rank else 0

    def launch(self, function: Callable[..., Any], *args: Any, trainer: L.Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, unless this is one, and call the function in each."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[PARENT] = str(os.getpid())
            self._call_children_scripts()
            del os.environ[PARENT]
        self.done.clear()
        if self.procs or self.parent:
            threading.Thread(target=self.watch, name="ranks", daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        result = function(*args, **kwargs)
        self.done.set()
        return result

    def watch(self) -> None:
        """Until training is over: end this process a while after another one, if it has not ended by itself."""
        while not self.done.wait(LOOK):
            if sentence := self.casualty():
                if not self.parent:
                    self.done.wait(GRACE)
                if not self.done.is_set():
                    if self.rank <= 1:  # of the processes that were started, one is enough to speak
                        print(f"zoo: {sentence}", file=sys.stderr, flush=True)
                    self.kill(signal.SIGKILL)  # one that waits for others hears nothing else
                    os._exit(1)

    def casualty(self) -> str:
        """Which process died and what to do now; nothing while all live."""
        if self.parent:
            return self._told(0, "died") if os.getppid() != self.parent else ""
        for rank, process in enumerate(self.procs, 1):
            code = process.poll()
            if code:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                return self._told(rank, how)
        return ""

    def _told(self, rank: int, how: str) -> str:
        return f"process {rank} of {self.num_processes} (from 0) {how}, and the run ends with it: {self.advice()}"


def look_after(trainer: L.Trainer, advice: Callable[[], str]) -> None:
    """Watch over the processes that a training will start, if it starts any."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = Launcher(launcher, advice)


def starts_processes(trainer: L.Trainer) -> bool:
    """Will a training repeat the command in other processes?"""
    launcher = trainer.strategy.launcher
    return isinstance(launcher, _SubprocessScriptLauncher) and (
        launcher.num_processes > 1 and not launcher.cluster_environment.creates_processes_externally
    )


def account(trainer: L.Trainer, error: Exception) -> None:
    """What a failed training means for the other processes.

    Raises:
        ZooError: the error is but the consequence of another process's end, which the sentence names.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, Launcher) or not (launcher.procs or launcher.parent):
        return
    deadline = time.monotonic() + GRACE
    while of_collective(error) and time.monotonic() < deadline:
        if sentence := launcher.casualty():
            launcher.done.set()
            launcher.kill(signal.SIGKILL)
            raise ZooError(sentence) from error
        time.sleep(LOOK / 5)
    launcher.done.set()
    launcher.kill(signal.SIGKILL)  # they wait for this process, which has failed on its own


def of_collective(error: Exception) -> bool:
    """Does an error come from processes that exchange numbers?"""
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl"))
