"""Train every recipe for four batches and compare the losses with those of another commit.

    python -m tests.fingerprint before.json                       # at one commit
    python -m tests.fingerprint after.json --against before.json  # at another: lists what differs

A refactoring must not change a number that it did not mean to change. Numbers are those of `metrics.csv`: training and
validation terms and gradient norms, without times. Equal seeds give equal numbers on one machine only.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import zoo

LARGE = ("gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl")  # gigabytes of weights
PLANE = ("gan", "vae", "ae", "ppca", "gmm", "noise", "copies")  # models that learn points in the plane too
MNIST = ("gan", "vae", "ae", "dcgan", "pixelcnn")  # and larger pictures, where $ZOO_DATA has them
Numbers = dict[str, list[str]]  # column of metrics.csv -> its values as written


def train(models: list[str], folder: Path, *overrides: str) -> None:
    """Run a sweep over recipes; one that fails leaves no table."""
    command = [sys.executable, "train.py", "-m", f"model={','.join(models)}", "trainer=smoke", *overrides]
    subdir = "${hydra:runtime.choices.model}-${hydra:runtime.choices.data}"
    subprocess.run([*command, f"hydra.sweep.dir={folder}", f"hydra.sweep.subdir={subdir}"], check=False)


def read(table: Path) -> Numbers:
    """The numbers of one run that its seed determines."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if not name.startswith(("epoch", "seen/", "lr"))]
    return {name: [row[name] for row in rows if row[name]] for name in columns}


def measure(mnist: bool) -> dict[str, Numbers]:
    """Train everything; name of the run -> its numbers."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train([name for name in zoo.list_models() if name not in LARGE], folder)
        train(list(PLANE), folder, "data=moons")
        if mnist:
            train(list(MNIST), folder, "data=mnist")
        return {table.parent.name: read(table) for table in sorted(folder.glob("*/metrics.csv"))}


def compare(before: dict[str, Numbers], after: dict[str, Numbers]) -> list[str]:
    """One line for each run that differs."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            lines.append(f"{name}: only {'after' if old is None else 'before'}")
        elif differ := [key for key in old if old[key] != new.get(key)]:
            shown = ", ".join(f"{key} {old[key][-1:]} -> {new.get(key, [])[-1:]}" for key in differ[:3])
            lines.append(f"{name}: {len(differ)} of {len(old)} columns differ: {shown}")
    return lines


def main() -> None:
    """Measure, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--mnist", action="store_true", help="also on MNIST, from $ZOO_DATA")
    options = parser.parse_args()
    found = measure(options.mnist)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} runs")
    if options.against:
        different = compare(json.loads(options.against.read_text()), found)
        print(*different, f"{len(different)} runs differ", sep="\n")


if __name__ == "__main__":
    main()
