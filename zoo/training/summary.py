"""Console output before and after a training."""

from collections.abc import Mapping

import pytorch_lightning as L
from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.markup import escape

from zoo.core.counted import counted
from zoo.core.errors import printable
from zoo.models.abilities import (
    SupportsDataEmbedding,
    SupportsEmbedding,
    SupportsMaskFilling,
    SupportsRecommendation,
    SupportsSampling,
    SupportsTextGeneration,
)
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import (
    SupportsCaptioning,
    SupportsImageTranslation,
    SupportsQuestionAnswering,
    SupportsStyleTransfer,
)
from zoo.runs.checkpoint import is_intact, read_checkpoint, restore_model
from zoo.training.context import TrainingContext
from zoo.training.diagnosis import diagnose, read_curves
from zoo.training.fsdp import ShardedStrategy
from zoo.viz.files import save_shown
from zoo.viz.render import render_samples


def print_header(context: TrainingContext, trainer: L.Trainer) -> None:
    """Print the model, data, trainer and run folder before training."""
    cfg, run, model, data = context.cfg, context.run, context.model, context.data
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    device = trainer.strategy.root_device.type + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    unit = data.spec.x.items
    recipe = HydraConfig.get().runtime.choices["model"] if HydraConfig.initialized() else cfg.model.name
    length = f"{counted(cfg.trainer.max_steps, 'batch')} of {data.batch_size}"
    usual, n_train = cfg.model.training.batch_size, len(data.train[0])
    lines = {
        "model": f"{recipe}: {parameters:,} parameters",
        "data": f"{data.spec}: {len(data.train[0]):,} training and {len(data.val[0]):,} validation {unit}",
        **data.details,
        "trainer": f"{length} on {device}, precision {trainer.precision}",
        "batch": f"{data.batch_size} instead of {usual}: a quarter of {n_train:,} {unit}",
        "run": str(run.folder),
        "watch": f"tensorboard --logdir {run.folder} --samples_per_plugin images=200",
    }
    if isinstance(trainer.strategy, ShardedStrategy):
        off = ", ".join(trainer.strategy.off)
        lines["sharded"] = "weights, gradients and optimizer state" + (f"; off: {off}" if off else "")
    if data.batch_size == usual or data.batch_size != max(n_train // 4, 1):
        del lines["batch"]
    print_lines(context.console, lines)


def print_lines(console: Console, lines: Mapping[str, str]) -> None:
    """Print one line per key, the key in bold."""
    for key, text in lines.items():
        console.print(f"[bold]{key:<8}[/bold] {escape(printable(text))}", highlight=False, soft_wrap=True)


def drawable(model: Model) -> bool:
    """Whether `zoo sample` applies."""
    return any(supports(model, one) for one in (SupportsSampling, SupportsTextGeneration, SupportsMaskFilling))


def other_verb(model: Model) -> str:
    """The verb for a model that `zoo sample` does not apply to."""
    if supports(model, SupportsImageTranslation) or supports(model, SupportsStyleTransfer):
        return "edit"
    if supports(model, SupportsRecommendation):
        return "recommend"
    if supports(model, SupportsCaptioning):
        return "caption"
    if supports(model, SupportsQuestionAnswering):
        return "answer"
    if supports(model, SupportsEmbedding):
        return "embed"
    return "index" if supports(model, SupportsDataEmbedding) else "evaluate"


def finish(context: TrainingContext, trainer: L.Trainer) -> float | None:
    """Draw samples with the best weights; print the result, files and warnings. Return the best monitored value."""
    run, model, data, best = context.run, context.model, context.data, context.checkpointer.best_or_none
    if isinstance(trainer.strategy, ShardedStrategy):  # this process has a part of the weights
        model = restore_model(read_checkpoint(run.best if run.best.is_file() else run.last)).eval()
    elif best is not None and run.best.is_file() and is_intact(run.best):
        model.load_state_dict(read_checkpoint(run.best)["state_dict"])
    files = []
    for name, picture in render_samples(model, data).items():
        stem = "final" if name == "samples" else f"final-{name}"
        files.append(save_shown(run.samples / stem, picture))
    last = trainer.callback_metrics.get(model.monitor)
    reached = f"{model.monitor} {best:.4g}" if best is not None else "no validation was reached"
    lines = {
        "reached": reached + (f" (last {last.item():.4g})" if last is not None and best is not None else ""),
        "weights": f"{run.best} and {run.last.name}",
        **({"samples": "  ".join(map(str, files))} if files else {}),
        "more": f"zoo sample {run.folder} -n 64" if drawable(model) else f"zoo {other_verb(model)} {run.folder} --help",
        "watch": f"tensorboard --logdir {run.folder} --samples_per_plugin images=200",
    }
    if context.cfg.profiler:
        lines["profile"] = str(run.folder / "fit-profile.txt")
    print_lines(context.console, lines)
    table = run.folder / "metrics.csv"
    learns = any(p.requires_grad for p in model.parameters())  # a fitted model has neither batches nor rates to change
    for sentence in diagnose(read_curves(table), model.monitor) if learns and table.is_file() else []:
        print_lines(context.console, {"problem": sentence})
    return best
