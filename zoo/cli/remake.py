"""Train a pretrained model again, and compare its metrics with the recorded ones."""

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zoo.core.errors import CheckpointError, ConfigError
from zoo.evaluation.evaluate import Evaluation, evaluate, to_json
from zoo.hub.bundle import bundle, seal
from zoo.hub.card import number
from zoo.hub.manifest import Manifest
from zoo.hub.pretrained import catalogue, entry

COMMAND = ["python", "train.py"]  # the beginning of a recorded command


def remake_pretrained(
    name: str, overrides: Sequence[str] = (), out: Path | None = None, only: Sequence[str] = ()
) -> Manifest:
    """Run the command of a pretrained model, store its weights in half precision, and evaluate both.

    Args:
        name: of the catalogue, or a new one with overrides.
        overrides: in place of the recorded ones.
        out: a folder that receives the model as OUT/NAME; None keeps nothing.
        only: suites of metrics; empty for all that apply.

    Returns:
        The manifest of the new model, with its metrics.

    Raises:
        CheckpointError: an unknown name, or OUT/NAME exists.
        ConfigError: the training failed.
    """
    recorded = catalogue().get(name) if overrides else entry(name)
    words = list(overrides) or shlex.split(recorded.command if recorded else "")[len(COMMAND) :]
    if out is not None and (out / name).exists():
        raise CheckpointError(f"--out={out / name}: exists. Remove it, or choose another folder.")
    with tempfile.TemporaryDirectory(prefix="zoo-remake-") as place:
        run, folder = Path(place, "run"), Path(place, name)
        train(words, run)
        full, half = metrics_of(evaluate(run, only=only)), bundle_and_measure(run, folder, name, only)
        before = recorded.metrics if recorded else {}
        Console(width=None if sys.stdout.isatty() else 120).print(
            comparison({"recorded": before, "again": full["metrics"], "again, half precision": half.metrics})
        )
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, out / name)
    return half


def train(words: Sequence[str], run: Path) -> None:
    """Train in a new process.

    Raises:
        ConfigError: it failed; its output is on the console.
    """
    command = [sys.executable, "-m", "zoo", "train", *words, f"hydra.run.dir={run}"]
    if subprocess.run(command).returncode:
        raise ConfigError(f"{shlex.join([*COMMAND, *words])}: failed. Correct the command.")


def bundle_and_measure(run: Path, folder: Path, name: str, only: Sequence[str] = ()) -> Manifest:
    """Bundle a run in half precision, and enter the metrics of exactly these weights in the manifest."""
    folder.mkdir()
    found = bundle(run, folder, name, half=True)
    return seal(replace(found, **metrics_of(evaluate(folder, only=only))), folder)


def metrics_of(done: Evaluation) -> dict[str, Any]:
    """Protocol and metrics, as in a manifest."""
    metrics = {key: to_json(score) for key, score in done.scores.items()}
    found: dict[str, Any] = json.loads(json.dumps({"protocol": done.facts["protocol"], "metrics": metrics}))
    return found


def comparison(columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Table of metrics, with one column for each model."""
    table = Table("metric", *columns, box=None, header_style="bold")
    for name in dict.fromkeys(name for metrics in columns.values() for name in metrics):
        scores = [metrics.get(name, {}) for metrics in columns.values()]
        table.add_row(name, *(number(score.get("value"), score.get("error")) for score in scores))
    return table
