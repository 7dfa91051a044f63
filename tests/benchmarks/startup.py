"""Start-up times: `python -m tests.benchmarks.startup` measures them on this machine.

Every command runs in a new process, all in turn, so that other load affects each alike. The first round only warms the
file cache and is not counted. The baseline is a process that only imports torch and Lightning.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from zoo.core.errors import ZooError

BARE = "import torch, pytorch_lightning"
_ZOO = "import sys; sys.argv = ['zoo', {}]; from zoo.cli.main import main; main()"
COMMANDS = {  # command -> Python code
    "import torch, pytorch_lightning": BARE,
    "import zoo": "import zoo",
    "zoo --help": _ZOO.format("'--help'"),
    "zoo list": _ZOO.format("'list'"),
    "zoo info gan": _ZOO.format("'info', 'gan'"),
    "zoo info <TAB>": _ZOO.format(""),
}
SERVING = "zoo serve gan-digits: first page"
COMPLETING = {
    "_ZOO_COMPLETE": "complete_bash",
    "COMP_WORDS": "zoo info ",
    "COMP_CWORD": "2",
}  # environment of bash completion

# Train like `python train.py`; after the first batch print the time and the imported modules.
FIRST_STEP = """
import os, sys, time
from zoo.core.lazy_imports import install
install()
from zoo.training.callbacks.max_batches import StopAfterBatches
def stop(*_, **__):
    print("first step:", time.monotonic(), *sys.modules, flush=True)
    os._exit(0)
StopAfterBatches.on_train_batch_end = stop
from zoo.cli.train import train
train()
"""


@dataclass(frozen=True)
class Startup:
    """Wall-clock seconds, one number per round; rounds with the same index ran side by side."""

    seconds: Mapping[str, Sequence[float]]  # by command

    def describe(self) -> str:
        """Table of medians, and of the delay after the bare imports."""
        bare = self.seconds[BARE]
        width = max(map(len, self.seconds))
        lines = [f"{'':<{width}}  seconds  after the bare imports (medians of {len(bare)})"]
        for typed, taken in self.seconds.items():
            later = median(a - b for a, b in zip(taken, bare, strict=True))
            lines.append(f"{typed:<{width}}  {median(taken):7.2f}  {later:+.2f}")
        return "\n".join(lines)


def measure(overrides: Sequence[str] = ("model=gan",), rounds: int = 5) -> Startup:
    """Time the commands, `python train.py OVERRIDES` up to the end of its first batch, and a server up to its page.

    Args:
        overrides: as for `train.py`.
        rounds: number of rounds.

    Raises:
        ZooError: a command failed.
    """
    training = f"train.py {' '.join(overrides)}: first step"
    seconds: dict[str, list[float]] = {typed: [] for typed in (*COMMANDS, training, SERVING)}
    for number in range(rounds + 1):
        taken = {typed: timed(typed, code) for typed, code in COMMANDS.items()}
        taken[training] = first_step(overrides)[0]
        taken[SERVING] = first_page()
        for typed, value in taken.items() if number else ():
            seconds[typed].append(value)
    return Startup(seconds)


def first_step(overrides: Sequence[str]) -> tuple[float, set[str]]:
    """Seconds until a training has finished its first batch, and the modules imported by then.

    Raises:
        ZooError: the training ended earlier.
    """
    with TemporaryDirectory() as folder:
        begin = time.monotonic()  # one clock for all processes of a machine
        output = _run("-c", FIRST_STEP, *overrides, f"hydra.run.dir={folder}/run")
    line = next((line.split() for line in output.splitlines() if line.startswith("first step:")), None)
    if line is None:
        raise ZooError(f"the training ended before its first step: {output.strip()[-200:]}. Correct the overrides.")
    return float(line[2]) - begin, set(line[3:])


def first_page() -> float:
    """Seconds from the start of `zoo serve gan-digits` until its page is there."""
    from zoo.benchmarks.serving import server

    begin = time.monotonic()
    with server(Path("gan-digits")) as ((host, port), _):
        urllib.request.urlopen(f"http://{host}:{port}/", timeout=60).read()
        return time.monotonic() - begin


def timed(typed: str, code: str) -> float:
    """Seconds of a Python program in a new process, in the environment of the command that it stands for."""
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
        errors = done.stderr.strip().splitlines() or ["nothing"]
        raise ZooError(f"a timed process failed: {errors[-1]}.")
    return done.stdout


def bench(overrides: Sequence[str] = (), rounds: int = 5, out: Path | None = None) -> None:
    """Measure and print; optionally write a record.

    Args:
        overrides: overrides of the training; default: model=gan.
        rounds: number of rounds.
        out: the record, as JSON.

    Raises:
        ZooError: a command failed.
    """
    found = measure(overrides or ["model=gan"], rounds)
    print(found.describe())
    if out is not None:
        from zoo.io.atomic import write_text
        from zoo.io.provenance import provenance  # imports torch: only after the measurements

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
