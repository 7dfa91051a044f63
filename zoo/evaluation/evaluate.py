"""Evaluate trained models, and record the metrics."""

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
from zoo.io.device import find_device
from zoo.io.provenance import hardware
from zoo.runs.checkpoint import batches_trained, find_checkpoint, read_checkpoint, restore_model
from zoo.runs.folder import SCORES, RunFolder


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one checkpoint.

    Args:
        path: the checkpoint.
        facts: protocol, data, features, hash of the checkpoint, batches, hardware.
        scores: metrics by name; see `zoo.evaluation.context`.
    """

    path: Path
    facts: dict[str, Any]
    scores: dict[str, Metric]

    @property
    def title(self) -> str:
        """Title in tables: the folder, and the checkpoint if it is not the best."""
        which = "" if self.path.name == "best.ckpt" else f"/{self.path.name}"
        return f"{self.path.parent.name}{which}"


def evaluate(
    run: str | Path, protocol: EvaluationConfig | None = None, *, only: Sequence[str] = (), device: str = "cpu"
) -> Evaluation:
    """Measure all metrics that apply to a trained model, on its data.

    Args:
        run: run folder (its best checkpoint), or a checkpoint in one.
        protocol: evaluation protocol; metrics are comparable only if it is equal.
        only: names of suites (likelihood, samples, reconstruction ...); empty for all that apply.
        device: cpu, cuda, cuda:1 ...; auto is the best of this machine.

    Raises:
        ConfigError: not a run; the data have changed; an unknown suite.
        HardwareError: a device that this machine does not have.
    """
    protocol, known = protocol or EvaluationConfig(), suites()
    for name in only:
        if name not in known:
            raise ConfigError(f"--only: {registry.unknown_name_message('suite', name, list(known))}.")
    path = find_checkpoint(run)
    home = RunFolder(path.parent)
    refuse_links(path.parent)  # files are written below
    config, checkpoint = home.config(), read_checkpoint(path)
    settings, model = config["data"], restore_model(checkpoint).to(find_device(device))
    data: DataModule = registry.build("data", settings, where="data")
    if config.get("init_from") and isinstance(data, TokenizedData):
        data.use_tokenizer_from(model.spec)
    data.setup()
    if data.spec != model.spec:
        other = "another vocabulary" if str(data.spec) == str(model.spec) else str(data.spec)
        raise ConfigError(f"{path} was trained on {model.spec}; the data have changed to {other}. Restore them.")
    context, scores = EvaluationContext(model, data, protocol), dict[str, Metric]()
    with torch.random.fork_rng(), torch.no_grad():
        for name in only or known:
            torch.manual_seed(protocol.seed)
            if known[name].applies(model, data):
                scores |= known[name].measure(context)
    facts = {
        "protocol": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(protocol).items()},
        "data": settings,
        "features": context.described(),
        "batches": batches_trained(checkpoint),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "sha256": sha256(path),
        "hardware": hardware(),
    }
    return Evaluation(path, facts, scores)


def record(evaluation: Evaluation) -> Path:
    """Write metrics to `metrics.json` next to the checkpoint, and to TensorBoard's table of hyperparameters.

    Metrics of other checkpoints are kept, and those of other suites if checkpoint and protocol are unchanged.
    """
    path = evaluation.path.with_name("metrics.json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    before = known.get(evaluation.path.name, {})
    same = all(before.get(key) == evaluation.facts[key] for key in ("protocol", "sha256"))
    kept = before.get("metrics", {}) if same else {}  # of other suites
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
    """Convert to plain values; infinity and NaN become None."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(score).items()}
