"""Evaluate trained models: the same protocol for every family, a table of runs side by side, records to rely on."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from zoo.config.sandbox import refuse_links
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.data.base import DataModule
from zoo.data.text.datamodule import TokenizedData
from zoo.evaluation.context import EvaluationConfig, EvaluationContext, Metric
from zoo.evaluation.suites.base import suites
from zoo.io.atomic import sha256, write_text
from zoo.io.provenance import hardware
from zoo.runs.checkpoint import batches_trained, find_checkpoint, read_checkpoint, restore_model
from zoo.runs.folder import SCORES, RunFolder


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one checkpoint.

    Args:
        path: the checkpoint.
        facts: what a rerun needs: protocol, data, features, hash of the checkpoint, batches, hardware.
        scores: by name; see `zoo.evaluation.context`.
    """

    path: Path
    facts: dict[str, Any]
    scores: dict[str, Metric]

    @property
    def title(self) -> str:
        """Heading of its column: the model and the folder, and the checkpoint if it is not the best."""
        which = "" if self.path.name == "best.ckpt" else f"/{self.path.name}"
        return f"{self.path.parent.name}{which}"


def evaluate(
    run: str | Path, protocol: EvaluationConfig | None = None, *, only: Sequence[str] = (), device: str = "cpu"
) -> Evaluation:
    """Measure what a trained model can do, on the data that it was trained on.

    Args:
        run: a run folder (its best checkpoint) or a checkpoint in one.
        protocol: how; the same for everything that is to be compared.
        only: names of suites (likelihood, samples, reconstruction ...); all that apply if empty.
        device: where to run.

    Raises:
        ConfigError: no run; other data than the model was trained on; an unknown suite.
    """
    protocol, known = protocol or EvaluationConfig(), suites()
    for name in only:
        if name not in known:
            raise ConfigError(f"--only: {registry.unknown_name_message('suite', name, list(known))}.")
    path = find_checkpoint(run)
    home = RunFolder(path.parent)
    refuse_links(path.parent)  # what is written below would go where they point
    config, checkpoint = home.config(), read_checkpoint(path)
    settings, model = config["data"], restore_model(checkpoint).to(device)
    data: DataModule = registry.build("data", settings, where="data")
    if config.get("init_from") and isinstance(data, TokenizedData):
        data.use_tokenizer_from(model.spec)
    data.setup()
    if data.spec != model.spec:
        other = "with another vocabulary" if str(data.spec) == str(model.spec) else str(data.spec)
        raise ConfigError(f"{path} was trained on {model.spec}, but the data are now {other}: bring back the former.")
    bench, scores = EvaluationContext(model, data, protocol), dict[str, Metric]()
    with torch.random.fork_rng(), torch.no_grad():
        for name in only or known:
            torch.manual_seed(protocol.seed)
            if known[name].applies(model, data):
                scores |= known[name].measure(bench)
    facts = {
        "protocol": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(protocol).items()},
        "data": settings,
        "features": bench.described(),
        "batches": batches_trained(checkpoint),
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
    metrics = kept | {name: to_json(score) for name, score in evaluation.scores.items()}
    known[evaluation.path.name] = {**evaluation.facts, "metrics": metrics}
    write_text(path, json.dumps(known, indent=1) + "\n")
    step, prefix = evaluation.facts["batches"], evaluation.path.stem
    with SummaryWriter(str(evaluation.path.parent / SCORES)) as writer:
        for name, score in evaluation.scores.items():
            writer.add_scalar(f"{prefix}/{name}", score.value, step)
            if score.parts:
                writer.add_histogram(f"{prefix}/{name}", torch.tensor(score.parts), step)
    return path


def to_json(score: Metric) -> dict[str, Any]:
    """Plain values; JSON knows no infinity, and what is undefined has no value either."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(score).items()}
