"""Train every recipe on a CUDA device in bfloat16 and on the CPU in float32, and compare their first losses.

    python -m tests.gpu --out gpu.json --jobs 14
    python -m tests.gpu --only vae,gpt --batches 50

A row is bad if a training fails, if a loss is not finite, or if the first losses differ by more than a quarter. Noise
differs between devices. A row is also bad if a resumed run ends with other weights than the straight run.
"""

import argparse
import contextlib
import csv
import io
import json
import logging
import math
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

import zoo
from zoo.cli.train import train as command

LARGE = ("gpt2_medium", "gpt2_large", "gpt2_xl")  # their batches of 480 fill a GPU alone
RESUMED = ("gan", "vae", "ae", "gpt", "image_gpt", "diffusion", "transformer", "bert")
TOLERANCE = 0.25


def run(*arguments: str) -> str:
    """Run `train.py` in this process; the last lines of its output if it fails."""
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            command(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:  # a row of the table
            output.write(traceback.format_exc())
            code = 1
    HydraConfig.instance().cfg = None
    for handler in [h for h in logging.root.handlers if isinstance(h, logging.FileHandler)]:
        logging.root.removeHandler(handler)
        handler.close()
    return f"exit {code}: {output.getvalue()[-1500:]}" if code else ""


def train(model: str, folder: Path, trainer: str, batches: int, *more: str) -> str:
    """Train one recipe; the problem, empty if there is none."""
    return run(
        f"model={model}",
        f"trainer={trainer}",
        f"trainer.max_steps={batches}",
        f"trainer.val_check_interval={max(batches // 2, 1)}",
        "+trainer.limit_val_batches=2",
        "trainer.log_every_n_steps=1",
        f"hydra.run.dir={folder}",
        *more,
    )


def losses(folder: Path) -> list[dict[str, float]]:
    """Training terms that metrics.csv has for each batch."""
    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rows = [{name: float(v) for name, v in row.items() if name.startswith("train/loss") and v} for row in table]
    return [row for row in rows if row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights at the end of a run."""
    return torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def resume(model: str, scratch: Path, trainer: str) -> str:
    """Compare a straight run with one that continues from its half, both deterministic; the problem."""
    straight, stopped = scratch / f"{model}-straight", scratch / f"{model}-stopped"
    for folder in (straight, stopped):
        if problem := train(model, folder, trainer, 8, "trainer.deterministic=true"):
            return problem
    (stopped / "last.ckpt").unlink()
    (stopped / "previous.ckpt").rename(stopped / "last.ckpt")  # the checkpoint of batch 4
    if problem := run(f"resume={stopped}"):
        return problem
    one, other = weights(straight), weights(stopped)
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    return f"{len(differ)} of {len(one)} tensors differ after resuming" if differ else ""


def check(model: str, scratch: Path, trainer: str, batches: int) -> dict[str, Any]:
    """One row: problem, first and last losses, seconds."""
    torch.set_num_threads(1)
    cpu, gpu, start = scratch / f"{model}-cpu", scratch / f"{model}-gpu", time.perf_counter()
    problem = train(model, gpu, trainer, batches) or train(model, cpu, "cpu", 1, "trainer.precision=32-true")
    row: dict[str, Any] = {"model": model}
    if not problem:
        found, expected = losses(gpu), losses(cpu)
        row |= {"first": found[0], "first_cpu": expected[0], "last": found[-1]}
        if not all(math.isfinite(value) for one in found for value in one.values()):
            problem = "a loss is not finite"
        elif far := [k for k, v in expected[0].items() if abs(found[0][k] - v) > TOLERANCE * max(abs(v), 1)]:
            problem = f"other first losses: {far}"
    if not problem and model in RESUMED:
        problem = resume(model, scratch, trainer)
    return row | {"seconds": round(time.perf_counter() - start, 1), "problem": problem}


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
    rows: list[dict[str, Any]] = []
    pool = ProcessPoolExecutor(options.jobs, get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, pool:
        settings = Path(folder), options.trainer, options.batches
        for done in as_completed([pool.submit(check, name, *settings) for name in names]):
            row = done.result()
            print(f"{row['model']:20} {row['seconds']:6.1f} s  {row['problem'] or 'ok'}", flush=True)
            rows.append(row)
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
    bad = [row["model"] for row in rows if row["problem"]]
    print(f"{len(rows) - len(bad)} of {len(rows)} recipes pass" + (f"; not: {', '.join(bad)}" if bad else ""))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
