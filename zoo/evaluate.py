"""Evaluate trained models: the same protocol for every family, a table of runs side by side, records to rely on."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard.writer import SummaryWriter

from zoo import registry
from zoo.checkpoint import batches, find, read, restore
from zoo.data.base import DataModule
from zoo.data.text import Tokenised
from zoo.errors import ZooError
from zoo.metrics.bench import Bench, Protocol, Score
from zoo.metrics.groups import GROUPS
from zoo.run import SCORES, Run, hardware
from zoo.sandbox import refuse_links
from zoo.whole import sha256, write_text

ARROWS = {"lower": "↓", "higher": "↑", "floor": "→"}


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one checkpoint.

    Args:
        path: the checkpoint.
        facts: what a rerun needs: protocol, data, features, hash of the checkpoint, batches, hardware.
        scores: by name; see `zoo.metrics.bench`.
    """

    path: Path
    facts: dict[str, Any]
    scores: dict[str, Score]

    @property
    def title(self) -> str:
        """Heading of its column: the model and the folder, and the checkpoint if it is not the best."""
        which = "" if self.path.name == "best.ckpt" else f"/{self.path.name}"
        return f"{self.path.parent.name}{which}"


def evaluate(
    run: str | Path, protocol: Protocol | None = None, *, only: Sequence[str] = (), device: str = "cpu"
) -> Evaluation:
    """Measure what a trained model can do, on the data that it was trained on.

    Args:
        run: a run folder (its best checkpoint) or a checkpoint in one.
        protocol: how; the same for everything that is to be compared.
        only: groups of metrics (likelihood, prediction, samples, reconstruction, latent); all if empty.
        device: where to run.

    Raises:
        ZooError: no run; other data than the model was trained on; an unknown group.
    """
    protocol = protocol or Protocol()
    for group in only:
        if group not in GROUPS:
            raise ZooError(f"--only: {registry.unknown('group of metrics', group, list(GROUPS))}.")
    path = find(run)
    home = Run(path.parent)
    refuse_links(path.parent)  # what is written below would go where they point
    config, checkpoint = home.config(), read(path)
    settings, model = config["data"], restore(checkpoint).to(device)
    data: DataModule = registry.build("data", settings, where="data")
    if config.get("init_from") and isinstance(data, Tokenised):
        data.adopt(model.spec)
    data.setup()
    if data.spec != model.spec:
        other = "with another vocabulary" if str(data.spec) == str(model.spec) else str(data.spec)
        raise ZooError(f"{path} was trained on {model.spec}, but the data are now {other}: bring back the former.")
    bench, scores = Bench(model, data, protocol), dict[str, Score]()
    with torch.random.fork_rng(), torch.no_grad():
        for name in only or GROUPS:
            torch.manual_seed(protocol.seed)
            scores |= GROUPS[name](bench)
    facts = {
        "protocol": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(protocol).items()},
        "data": settings,
        "features": bench.described(),
        "batches": batches(checkpoint),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "sha256": sha256(path),
        "hardware": hardware(),
    }
    return Evaluation(path, facts, scores)


def record(evaluation: Evaluation) -> Path:
    """Write `metrics.json` beside the checkpoint, which keeps what other checkpoints of the run have, and TensorBoard.

    The numbers join the run's row in TensorBoard's table of hyperparameters.
    """
    path = evaluation.path.with_name("metrics.json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    before = known.get(evaluation.path.name, {})
    same = all(before.get(key) == evaluation.facts[key] for key in ("protocol", "sha256"))
    kept = before.get("metrics", {}) if same else {}  # of other groups
    metrics = kept | {name: storable(score) for name, score in evaluation.scores.items()}
    known[evaluation.path.name] = {**evaluation.facts, "metrics": metrics}
    write_text(path, json.dumps(known, indent=1) + "\n")
    step, prefix = evaluation.facts["batches"], evaluation.path.stem
    with SummaryWriter(str(evaluation.path.parent / SCORES)) as writer:
        for name, score in evaluation.scores.items():
            writer.add_scalar(f"{prefix}/{name}", score.value, step)
            if score.parts:
                writer.add_histogram(f"{prefix}/{name}", torch.tensor(score.parts), step)
    return path


def storable(score: Score) -> dict[str, Any]:
    """Plain values; JSON knows no infinity, and what is undefined has no value either."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(score).items()}


def table(evaluations: Sequence[Evaluation]) -> Table:
    """Metrics in rows, runs in columns, and the floor: what real data score in place of samples."""
    names = list(dict.fromkeys(name for e in evaluations for name in e.scores))
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("metric", no_wrap=True)
    for e in evaluations:
        shown.add_column(e.title, justify="right", overflow="fold")
    shown.add_column("real data", justify="right", no_wrap=True)
    for name in names:
        scores = [e.scores.get(name) for e in evaluations]
        known = [s for s in scores if s is not None]
        floors = {written(s.floor) for s in known if s.floor is not None}
        cells = ["" if s is None else written(s.value, s.error) for s in scores]
        shown.add_row(f"{name} {ARROWS[known[0].better]}", *cells, " ".join(sorted(floors)))
    return shown


def written(value: float | None, error: float | None = None) -> str:
    """Four significant digits, and the standard error if there is one."""
    if value is None:
        return "-"
    return f"{value:.4g}" + (f" ± {error:.2g}" if error is not None else "")


def report(evaluations: Sequence[Evaluation], console: Console) -> None:
    """One table for each data set and protocol, so that only what can be compared stands side by side."""
    groups: dict[str, list[Evaluation]] = {}
    for e in evaluations:
        key = f"{e.facts['data']['name']}  " + "  ".join(f"{k}={v}" for k, v in e.facts["protocol"].items() if v)
        groups.setdefault(key, []).append(e)
    for key, group in groups.items():
        console.print(f"[bold]data[/bold] {key}", highlight=False)
        console.print(table(group))
        console.print("↓ lower is better  ↑ higher is better  → the nearer to real data the better\n", highlight=False)
