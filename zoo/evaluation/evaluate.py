"""Evaluate trained models, and record the metrics."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from zoo.config.compose import compose, to_plain
from zoo.config.sandbox import refuse_links
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.data.base import DataModule
from zoo.data.text.datamodule import TokenizedData
from zoo.evaluation.context import EvaluationConfig, EvaluationContext, Metric
from zoo.evaluation.suites.base import Suite, suites
from zoo.hub.pretrained import resolve
from zoo.interop.huggingface import load as huggingface
from zoo.io.atomic import sha256, write_text
from zoo.io.device import find_device
from zoo.io.provenance import hardware
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.options import parse_options
from zoo.runs.checkpoint import batches_trained, find_checkpoint, read_checkpoint, restore_model
from zoo.runs.folder import RunFolder
from zoo.runs.loggers import EVALUATED


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
        which = "" if self.path.name in ("best.ckpt", huggingface.WEIGHTS, huggingface.INDEX) else f"/{self.path.name}"
        return f"{self.path.parent.name}{which}"


def evaluate(
    run: str | Path,
    protocol: EvaluationConfig | None = None,
    *,
    only: Sequence[str] = (),
    device: str = "cpu",
    keep: Callable[[Evaluation], Any] | None = None,
    data: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Evaluation:
    """Measure all metrics that apply to a trained model, on its data.

    Args:
        run: run folder (its best checkpoint), a checkpoint in one, a folder in the Hugging Face format, or a
            pretrained or published model; see `zoo.hub.pretrained.resolve`.
        protocol: evaluation protocol; metrics are comparable only if it is equal.
        only: names of suites (likelihood, samples, reconstruction ...); empty for all that apply.
        device: cpu, cuda, cuda:1 ...; auto is the best of this machine.
        keep: receives the metrics of each suite when it is finished, such as `record`: a later failure loses nothing.
        data: settings of the data that differ from those of the run, such as the path of data that has moved. A
            Hugging Face folder needs all of them, with the name: `{"name": "text", "path": "notes/"}`.
        options: KEY=VALUE, keyword-only parameters of the model's `sample`. Only suites of samples are then measured,
            and the names of their metrics end in the options.

    Raises:
        ConfigError: not a run, an unknown setting of the data, or data that have changed. A suite or option that is
            unknown or does not apply.
        HardwareError: a device that this machine does not have.
    """
    protocol, known = protocol or EvaluationConfig(), suites()
    for name in only:
        if name not in known:
            raise ConfigError(f"--only: {registry.unknown_name_message('suite', name, list(known))}.")
    place = resolve(run)
    foreign = huggingface.is_folder(place)
    path, model, settings, batches = (read_foreign if foreign else read_run)(place, data or {})
    model = model.to(find_device(device))
    given = sample_options(model, options, [name for name in only if not known[name].draws])
    loaded: DataModule = registry.build("data", settings, where="data")
    if isinstance(loaded, TokenizedData) and (foreign or RunFolder(path.parent).config().get("init_from")):
        loaded.use_tokenizer_from(model.spec)
    loaded.setup()
    if loaded.spec.x != model.spec.x or (not foreign and loaded.spec != model.spec):
        other = "another vocabulary" if str(loaded.spec) == str(model.spec) else str(loaded.spec)
        raise ConfigError(f"{path} was trained on {model.spec}; the data have changed to {other}. Restore them.")
    if idle := [name for name in only if not known[name].applies(model, loaded)]:
        able = ", ".join(name for name, suite in known.items() if suite.applies(model, loaded))
        raise ConfigError(
            f"--only={idle[0]}: this suite does not apply to {model.registered_name} with {loaded.registered_name}. "
            f"Use {able}."
        )
    context, scores = EvaluationContext(model, loaded, protocol, given), dict[str, Metric]()
    facts = {
        "protocol": {
            k: str(v) if isinstance(v, Path) else list(map(str, v)) if isinstance(v, tuple) else v
            for k, v in asdict(protocol).items()
        },
        "data": settings,
        "features": {},
        "batches": batches,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "sha256": sha256(path),
        "hardware": hardware(),
    }
    with torch.random.fork_rng(), torch.no_grad():
        for name in only or [name for name, suite in known.items() if suite.draws or not given]:
            if known[name].applies(model, loaded):
                found = measure(known[name], context)
                facts["features"] = context.described()
                scores |= found
                if keep is not None:
                    keep(Evaluation(path, dict(facts), found))
    return Evaluation(path, facts, scores)


def sample_options(model: Model, words: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    """Parse options of the model's samples; `others` are suites asked for that do not draw samples.

    Raises:
        ConfigError: an unknown option, a model of text or without samples, or a suite that the options do not change.
    """
    if not words:
        return {}
    if others:
        raise ConfigError(f"--only={others[0]}: measures no samples, which {words[0]} is for. Leave one of them out.")
    if model.spec.text or not supports(model, SupportsSampling):
        reason = "is measured by fixed protocols of texts" if model.spec.text else "does not draw samples"
        raise ConfigError(f"{words[0]}: {model.registered_name} {reason}. Leave it out.")
    return parse_options(model.sample, words, model.registered_name)


def option_words(options: Mapping[str, Any]) -> str:
    """Options as they are written in the names of metrics: `_guidance=1.5_steps=2`."""

    def word(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(map(word, value))
        return f"{value:g}" if isinstance(value, float) else str(value)  # 2 and 2.0 are one option

    return "".join(f"_{key}={word(options[key])}" for key in sorted(options))


def of_equal_file(run: str | Path, done: Sequence[Evaluation]) -> Evaluation | None:
    """The evaluation of a checkpoint from that of an equal file beside it: best.ckpt is often the last one too.

    Args:
        run: as of `evaluate`; only the path of a file counts.
        done: evaluations by the same protocol.
    """
    path = Path(run).absolute()
    beside = [one for one in done if one.path.parent.absolute() == path.parent]
    if not beside or not path.is_file():
        return None
    digest = sha256(path)
    return next((replace(one, path=path) for one in beside if one.facts["sha256"] == digest), None)


def read_run(run: Path, changes: Mapping[str, str]) -> tuple[Path, Model, dict[str, Any], int]:
    """Checkpoint, model, settings of the data, and batches of a run."""
    path = find_checkpoint(run)
    refuse_links(path.parent)  # files are written below
    config, checkpoint = RunFolder(path.parent).config(), read_checkpoint(path)
    return path, restore_model(checkpoint), moved(config["data"], changes), batches_trained(checkpoint)


def read_foreign(folder: Path, given: Mapping[str, str]) -> tuple[Path, Model, dict[str, Any], int]:
    """Weights, model, settings of the data, and no batches of a folder in the Hugging Face format.

    The data take tokenizer and context of the model.

    Raises:
        ConfigError: the data have no name, or a setting that does not fit.
    """
    refuse_links(folder)
    if "name" not in given:
        raise ConfigError(
            f"{folder}: a Hugging Face folder, which does not name its data. Add data=NAME and its settings, such as "
            f"data=text data.path=PATH."
        )
    model = huggingface.load(folder)
    words = [f"data.{key}={value}" for key, value in given.items() if key != "name"]
    if "context" not in given:
        words.append(f"data.context={model.spec.size}")
    settings = to_plain(compose(f"data={given['name']}", *words).data)
    index = folder / huggingface.INDEX
    return (index if index.is_file() else folder / huggingface.WEIGHTS), model, settings, 0


def measure(suite: Suite, context: EvaluationContext) -> dict[str, Metric]:
    """Measure a suite; one that draws samples several times, for the mean and the standard deviation over seeds.

    The names end in the options of the samples, so that a number with options is not mistaken for one without.
    """
    draws = [context.redrawn(number) for number in range(context.protocol.draws if suite.draws else 1)]
    found = []
    for one in draws:
        torch.manual_seed(one.protocol.seed)
        found.append(suite.measure(one))
    ending = option_words(context.options)
    return {f"{name}{ending}": average([scores[name] for scores in found]) for name in found[0]}


def average(draws: Sequence[Metric]) -> Metric:
    """Mean of a metric over draws; its error becomes the standard deviation over them."""
    first = draws[0]
    if len(draws) == 1 or not math.isfinite(first.value):
        return first
    values, references = [m.value for m in draws], [m.real_data_reference for m in draws]
    known = [reference for reference in references if reference is not None]
    return replace(
        first,
        value=fmean(values),
        error=stdev(values),
        real_data_reference=fmean(known) if known else None,
        note=first.note or f"mean and standard deviation over {len(draws)} draws",
    )


def moved(settings: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """Settings of a run's data with changed texts, such as paths.

    Raises:
        ConfigError: a setting that the data does not have, or that is not text.
    """
    for key in changes:
        if key not in settings:
            raise ConfigError(f"data.{key}: {registry.unknown_name_message('setting', key, sorted(settings))}.")
        if not isinstance(settings[key], str | None):
            raise ConfigError(f"data.{key}={changes[key]}: not a text or path of the run's data. Leave it out.")
    return {**settings, **changes}


def record(evaluation: Evaluation) -> Path:
    """Write metrics to `metrics.json` next to the checkpoint, and to TensorBoard's table of hyperparameters.

    TensorBoard receives none of them while the run is being trained.

    Metrics of other checkpoints are kept, and those of other suites if checkpoint and protocol are unchanged.
    """
    path = evaluation.path.with_name("metrics.json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    before = known.get(evaluation.path.name, {})
    same = all(before.get(key) == evaluation.facts[key] for key in ("protocol", "sha256"))
    kept = before.get("metrics", {}) if same else {}  # of other suites
    metrics = kept | {name: to_json(score) for name, score in evaluation.scores.items()}
    features = evaluation.facts["features"] or (before.get("features", {}) if same else {})
    known[evaluation.path.name] = {**evaluation.facts, "features": features, "metrics": metrics}
    write_text(path, json.dumps(known, indent=1) + "\n")
    step, prefix = evaluation.facts["batches"], evaluation.path.stem
    home = RunFolder(path.parent)
    live = home.is_live()  # TensorBoard reads one file after the other, and would leave that of the training
    if live or not home.config_file.is_file():
        return path
    with SummaryWriter(str(path.parent), filename_suffix=EVALUATED) as writer:
        for name, score in evaluation.scores.items():
            writer.add_scalar(f"zoo_evaluate/{prefix}/{name}", score.value, step)
    return path


def to_json(score: Metric) -> dict[str, Any]:
    """Convert to plain values; infinity and NaN become None."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(score).items()}
