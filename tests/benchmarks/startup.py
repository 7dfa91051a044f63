"""How long it takes until something happens: `python -m tests.benchmarks.startup` measures it on this machine.

Every command runs in a process of its own, all of them in turn, so that what else the machine does meanwhile falls on
each alike; the first round only warms the file cache and is not counted. The yardstick is a process that does
nothing but import torch and Lightning.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from zoo.core.errors import ZooError

BARE = "import torch, pytorch_lightning"
_ZOO = "import sys; sys.argv = ['zoo', {}]; from zoo.cli.main import main; main()"
COMMANDS = {  # what is typed -> what Python runs
    "import torch, pytorch_lightning": BARE,
    "import zoo": "import zoo",
    "zoo --help": _ZOO.format("'--help'"),
    "zoo list": _ZOO.format("'list'"),
    "zoo info gan": _ZOO.format("'info', 'gan'"),
    "zoo info <TAB>": _ZOO.format(""),
}
COMPLETING = {"_ZOO_COMPLETE": "complete_bash", "COMP_WORDS": "zoo info ", "COMP_CWORD": "2"}  # as bash asks

# Trains as `python train.py` does; at the end of the first batch it says when that was and what has been imported.
FIRST_STEP = """
import os, sys, time
from zoo.core.lazy_imports import defer
defer()
from zoo.training.callbacks.max_batches import Clock
def stop(*_, **__):
    print("first step:", time.monotonic(), *sys.modules, flush=True)
    os._exit(0)
Clock.on_train_batch_end = stop
from zoo.cli.train import train
train()
"""


@dataclass(frozen=True)
class Startup:
    """Wall-clock seconds, one number per round; rounds with the same index ran side by side."""

    seconds: Mapping[str, Sequence[float]]  # by what is typed

    def describe(self) -> str:
        """A table of medians, and of how much later than the bare imports each is."""
        bare = self.seconds[BARE]
        width = max(map(len, self.seconds))
        lines = [f"{'':<{width}}  seconds  after the bare imports (medians of {len(bare)})"]
        for typed, taken in self.seconds.items():
            later = median(a - b for a, b in zip(taken, bare, strict=True))
            lines.append(f"{typed:<{width}}  {median(taken):7.2f}  {later:+.2f}")
        return "\n".join(lines)


def measure(overrides: Sequence[str] = ("model=gan",), rounds: int = 5) -> Startup:
    """Time the commands, and `python train.py OVERRIDES` up to the end of its first batch.

    Args:
        overrides: as for `train.py`.
        rounds: how often.

    Raises:
        ZooError: a command failed; it says how.
    """
    training = f"train.py {' '.join(overrides)}: first step"
    seconds: dict[str, list[float]] = {typed: [] for typed in (*COMMANDS, training)}
    for number in range(rounds + 1):
        taken = {typed: _timed(typed, code) for typed, code in COMMANDS.items()}
        taken[training] = first_step(overrides)[0]
        for typed, value in taken.items() if number else ():
            seconds[typed].append(value)
    return Startup(seconds)


def first_step(overrides: Sequence[str]) -> tuple[float, set[str]]:
    """Seconds until a training has done its first batch, and the modules that it has imported until then.

    Raises:
        ZooError: it ended before that.
    """
    with TemporaryDirectory() as folder:
        begin = time.monotonic()  # one clock for all processes of a machine
        said = _run("-c", FIRST_STEP, *overrides, f"hydra.run.dir={folder}/run")
    line = next((line.split() for line in said.splitlines() if line.startswith("first step:")), None)
    if line is None:
        raise ZooError(f"the training ended before its first step; it said: {said.strip()[-200:]}.")
    return float(line[2]) - begin, set(line[3:])


def _timed(typed: str, code: str) -> float:
    begin = time.monotonic()
    _run("-c", code, **(COMPLETING if typed.endswith("<TAB>") else {}))
    return time.monotonic() - begin


def _run(*arguments: str, **environment: str) -> str:
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise ZooError(f"a process that was to be timed failed, and said: {said[-1]}")
    return done.stdout


def bench(overrides: Sequence[str] = (), rounds: int = 5, out: Path | None = None) -> None:
    """Measure and print; write a record if asked.

    Args:
        overrides: of the training; none is the default recipe.
        rounds: how often.
        out: the record, as JSON.

    Raises:
        ZooError: a command failed.
    """
    found = measure(overrides or ["model=gan"], rounds)
    print(found.describe())
    if out is not None:
        from zoo.io.atomic import write_text
        from zoo.io.provenance import (
            provenance,  # these import torch: not before the measurements, which share the machine
        )

        about = {key: value for key, value in provenance().items() if key != "commit"}
        write_text(
            out,
            json.dumps({"command": "python -m tests.benchmarks.startup", **about, "seconds": found.seconds}, indent=1)
            + "\n",
        )
        print(f"zoo: wrote {out}", file=sys.stderr)


def main() -> None:
    """`python -m tests.benchmarks.startup [OVERRIDES] [--rounds N] [--record FILE]`."""
    parser = argparse.ArgumentParser(description="Time imports, commands, and a training's first step.")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    try:
        bench(given.overrides, given.rounds, given.record)
    except ZooError as error:
        sys.exit(f"startup: {error}")


if __name__ == "__main__":
    main()
