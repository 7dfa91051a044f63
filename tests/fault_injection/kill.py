"""`kill -9` at random moments: `python -m tests.fault_injection.kill --times 50` prints what survived.

Runs are trained, killed, resumed and killed again until they end, and then compared with a run that nobody disturbed.
Every other kill waits for a checkpoint to be written, and strikes within. Processes are forked from one that has
imported everything, which is why it takes seconds and not minutes.
"""

import argparse
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tests.fault_injection.equal import unequal
from zoo.cli.train import train
from zoo.runs.checkpoint import latest_intact, read_checkpoint
from zoo.runs.folder import RunFolder
from zoo.runs.loggers import EVENTS
from zoo.training.callbacks.checkpointer import Checkpointer
from zoo.training.callbacks.max_batches import StopAfterBatches

EVERY = 3  # batches between checkpoints
SETTINGS = [
    *("trainer=smoke", "trainer.max_steps=20", "trainer.val_check_interval=8", f"trainer.checkpoint_every={EVERY}"),
    *("trainer.deterministic=true", "data.batch_size=16"),
]


@dataclass
class Tally:
    """Counts of the outcomes."""

    kills: int = 0
    in_a_save: int = 0  # of these, struck while a checkpoint was being written
    before_it_began: int = 0  # of these, before config.yaml was written
    worst_loss: int = 0  # batches, to be compared with EVERY
    mean_loss: float = 0.0
    runs_ended: int = 0
    equal: int = 0  # of these, bit for bit the same as an undisturbed run: checkpoints and metrics.csv
    doubled: int = 0  # TensorBoard points that stand twice


class Board:
    """Progress of a process, in shared memory."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 4096)

    def __getitem__(self, place: int) -> int:
        return int.from_bytes(self.memory[8 * place : 8 * place + 8], "little")

    def __setitem__(self, place: int, value: int) -> None:
        self.memory[8 * place : 8 * place + 8] = value.to_bytes(8, "little")


DONE, SAVING, SAVES = 0, 1, 2


def tell(board: Board) -> None:
    """Make training report its progress."""
    ended, save = StopAfterBatches.on_train_batch_end, Checkpointer.save

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        ended(self, trainer, pl_module, *rest)
        board[DONE] = pl_module.step + 1

    def saving(self, *arguments) -> None:
        board[SAVING], board[SAVES] = 1, board[SAVES] + 1
        save(self, *arguments)
        board[SAVING] = 0

    StopAfterBatches.on_train_batch_end, Checkpointer.save = on_train_batch_end, saving


def life(folder: Path, model: str, board: Board, strike: Callable[[], bool] | None = None) -> int | None:
    """Train or resume in a new process; return its exit status, or None if `strike` killed it."""
    begun = (folder / "overrides.yaml").is_file()
    arguments = [f"resume={folder}"] if begun else [f"model={model}", *SETTINGS, f"hydra.run.dir={folder}"]
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            for number in (1, 2):
                os.dup2(
                    os.open(folder.parent / f"{folder.name}.{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number
                )
            torch.set_num_threads(1)
            tell(board)
            train(arguments)
            status = 0
        finally:
            os._exit(status)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if strike is not None and strike():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0005)


def moment(chance: random.Random, board: Board, number: int, length: float) -> Callable[[], bool]:
    """When to strike: any time, or some milliseconds into one of the next checkpoints."""
    began, delay = time.monotonic(), chance.uniform(0, length)
    if number % 2 == 0:
        return lambda: time.monotonic() - began > delay
    save, wait = board[SAVES] + chance.randint(1, 3), chance.uniform(0, 0.04)

    def strike() -> bool:
        if board[SAVES] < save:
            return False
        time.sleep(wait)
        return True

    return strike


def doubled(folder: Path) -> int:
    """Number of duplicate points in TensorBoard's curves."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    seen: dict[tuple[str, int], int] = {}
    for file in sorted(folder.glob(EVENTS)):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag.startswith(("train/", "val/", "view/")):
                    seen[value.tag, event.step] = seen.get((value.tag, event.step), 0) + 1
    return sum(count - 1 for count in seen.values())


def trial(times: int, seed: int, models: list[str], root: Path) -> Tally:
    """Kill so many times.

    Raises:
        RuntimeError: a folder could not be resumed, or more was lost than a checkpoint interval.
    """
    chance, board, tally, losses = random.Random(seed), Board(), Tally(), []
    straight, length = {}, 0.0
    for model in models:
        began, straight[model] = time.monotonic(), root / f"straight-{model}"
        if life(straight[model], model, board) != 0:
            raise RuntimeError((root / f"straight-{model}.2").read_text())
        length = max(length, time.monotonic() - began)
    number = 0
    while tally.kills < times or tally.runs_ended < len(models):
        model, folder = models[number % len(models)], root / f"{number}"
        number += 1
        while True:
            start = latest_intact(RunFolder(folder)) if folder.is_dir() else None
            board[DONE], board[SAVING] = read_checkpoint(start)["run"]["batches"] if start else 0, 0
            enough = tally.kills >= times
            status = life(folder, model, board, None if enough else moment(chance, board, tally.kills, length))
            if status == 0:
                break
            if status is not None:
                raise RuntimeError(f"{folder} cannot be resumed: {(root / f'{folder.name}.2').read_text()}")
            tally.kills += 1
            tally.in_a_save += board[SAVING]
            if not (folder / "overrides.yaml").is_file():
                tally.before_it_began += 1
                folder = root / f"{number}-{tally.kills}"
                continue
            end = latest_intact(RunFolder(folder))
            losses.append(board[DONE] - (read_checkpoint(end)["run"]["batches"] if end else 0))
            if losses[-1] > EVERY:
                raise RuntimeError(f"{folder} lost {losses[-1]} batches.")
        tally.runs_ended += 1
        one, two = straight[model], folder
        same = (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()
        tally.equal += same and not any(unequal(one / name, two / name) for name in ("best.ckpt", "last.ckpt"))
        tally.doubled += doubled(two)
        left = [*two.glob(".*.draft"), *two.glob("samples/.*.draft")]
        if left:
            raise RuntimeError(f"{two} was left with {left}")
    tally.worst_loss, tally.mean_loss = max(losses, default=0), round(sum(losses) / max(len(losses), 1), 2)
    return tally


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=["ae", "gan"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        tally = trial(asked.times, asked.seed, asked.models, Path(folder))
        print(json.dumps({**asdict(tally), "interval": EVERY}, indent=2))
        if tally.equal < tally.runs_ended or tally.doubled:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
