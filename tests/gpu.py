"""Train every recipe on a CUDA device in bfloat16 and on the CPU in float32, and compare their first losses.

    python -m tests.gpu --out gpu.json --jobs 14
    python -m tests.gpu --only vae,gpt --batches 50

A row is bad if a training fails, if a loss is not finite, if the first losses differ by more than a tenth, or if a resumed
run of a deterministic trainer ends with other weights than the straight run.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

import zoo

LARGE = ("gpt2_large", "gpt2_xl")  # gigabytes of weights
RESUMED = ("gan", "vae", "ae", "gpt", "image_gpt", "diffusion", "transformer", "bert")
TOLERANCE = 0.1


def run(*command: str, threads: int = 1) -> subprocess.CompletedProcess[str]:
    """Run train.py in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.run(
        [sys.executable, "train.py", *command], capture_output=True, text=True, env=environment, timeout=540
    )


def losses(folder: Path) -> list[dict[str, float]]:
    """Training terms that metrics.csv has for each batch."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if k.startswith("train/loss") and v} for row in csv.DictReader(file)]
    return [row for row in rows if row]


def train(model: str, folder: Path, trainer: str, batches: int, *more: str) -> tuple[str, float]:
    """Train one recipe; the problem, empty if there is none, and the seconds of the process."""
    start = time.perf_counter()
    done = run(
        f"model={model}",
        f"trainer={trainer}",
        f"trainer.max_steps={batches}",
        f"trainer.val_check_interval={max(batches // 2, 1)}",
        "+trainer.limit_val_batches=2",
        "trainer.log_every_n_steps=1",
        f"hydra.run.dir={folder}",
        *more,
    )
    tail = (done.stderr or done.stdout)[-1500:]
    return ("" if done.returncode == 0 else f"exit {done.returncode}: {tail}"), time.perf_counter() - start


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights at the end of a run."""
    return torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def resume(model: str, scratch: Path, trainer: str) -> str:
    """Compare a straight run with one that stops half-way, both deterministic; the problem."""
    straight, stopped = scratch / f"{model}-straight", scratch / f"{model}-stopped"
    for folder in (straight, stopped):
        problem = train(model, folder, trainer, 8, "trainer.deterministic=true")[0]
        if problem:
            return problem
    (stopped / "last.ckpt").unlink()
    (stopped / "previous.ckpt").rename(stopped / "last.ckpt")  # the checkpoint of batch 4
    done = run(f"resume={stopped}")
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-800:]}"
    one, other = weights(straight), weights(stopped)
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    return f"{len(differ)} of {len(one)} tensors differ after resuming" if differ else ""


def check(model: str, scratch: Path, trainer: str, batches: int) -> dict[str, Any]:
    """One row: problems, first and last losses, seconds."""
    cpu, gpu = scratch / f"{model}-cpu", scratch / f"{model}-gpu"
    problem, seconds = train(model, gpu, trainer, batches)
    row: dict[str, Any] = {"model": model, "seconds": round(seconds, 1)}
    if not problem:
        problem = train(model, cpu, "cpu", 1, "trainer.precision=32-true")[0]
    if not problem:
        found, expected = losses(gpu), losses(cpu)
        row |= {"first": found[0], "first_cpu": expected[0], "last": found[-1]}
        if not all(math.isfinite(value) for one in found for value in one.values()):
            problem = "a loss is not finite"
        far = {k: v for k, v in expected[0].items() if abs(found[0][k] - v) > TOLERANCE * max(abs(v), 1)}
        if far:
            problem = problem or f"other first losses: {far}"
    if not problem and model in RESUMED:
        problem = resume(model, scratch, trainer)
    return row | {"problem": problem}


def main() -> None:
    """Check the recipes side by side, print a line for each, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--trainer", default="gpu", help="cpu: try this script where there is no GPU")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [name for name in zoo.list_models() if name not in LARGE]
    rows = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        scratch = Path(folder)
        for row in pool.map(lambda name: check(name, scratch, options.trainer, options.batches), names):
            print(f"{row['model']:20} {row['seconds']:6.1f} s  {row['problem'] or 'ok'}", flush=True)
            rows.append(row)
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
    bad = [row["model"] for row in rows if row["problem"]]
    print(f"{len(rows) - len(bad)} of {len(rows)} recipes pass" + (f"; not: {', '.join(bad)}" if bad else ""))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
