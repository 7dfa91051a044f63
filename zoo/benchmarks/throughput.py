"""How fast a recipe trains here: through the zoo's own trainer, and against a loop written by hand."""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from zoo.benchmarks.profiling import FlopCounter, matmul, memory, peak_memory, time_breakdown
from zoo.benchmarks.reference_loop import AUTOCAST, ReferenceLoop
from zoo.benchmarks.sampling_speed import HEADINGS, sampling_speed
from zoo.benchmarks.scaling import exponents, parse
from zoo.benchmarks.timer import TimedLoader, Timer, TimingDone
from zoo.config.compose import compose
from zoo.config.recipes import recipes
from zoo.core.errors import ZooError
from zoo.io.atomic import write_text
from zoo.io.provenance import provenance
from zoo.models.baselines.base import Fitted
from zoo.runs.folder import RunFolder
from zoo.training.context import TrainingContext
from zoo.training.train import build_data, build_model
from zoo.training.trainer import build_trainer, compile_networks, quiet_lightning

LARGEST = 50_000_000  # weights of a recipe in a sweep on a processor, where larger ones take minutes for a step
FOREVER = 10**9  # batches: no training ends before it was timed
LINES = {  # what of a measurement is shown, how, and under which heading
    "model": ("model", "{}"),
    "data": ("data", "{}"),
    "batch": ("batch", "{:,}"),
    "precision": ("precision", "{}"),
    "per_second": ("per s", "{:,.0f}"),
    "ms": ("ms a step", "{:.2f}"),
    "bare_ms": ("bare ms", "{:.2f}"),
    "ratio": ("of bare speed", "{:.1%}"),
    "spread": ("from - to", "{:.0%}"),
    "cpu_ratio": ("by CPU time", "{:.1%}"),
    "data_share": ("waits for data", "{:.1%}"),
    "flops": ("GFLOP/s", "{:,.1f}"),
    "of_matmul": ("of matmul", "{:.1%}"),
    "step_mb": ("step MB", "{:,.1f}"),
    "peak_gb": ("process GB", "{:.2f}"),
}


@dataclass(frozen=True)
class Timing:
    """How to measure.

    Args:
        rounds: of the trainer, and as many of the loop that it is compared with, in turn.
        seconds: that a round lasts.
        warm: seconds of warm-up.
        bare: compare with the loop of `zoo.benchmarks.reference_loop`?
    """

    rounds: int = 10
    seconds: float = 0.5
    warm: float = 1.0
    bare: bool = True


def bench(
    overrides: Sequence[str] = (),
    timing: Timing = Timing(),
    sweep: bool = False,
    out: Path | None = None,
    grow: str = "",
    sampling: bool = False,
) -> list[dict[str, Any]]:
    """Measure one recipe, or all, or one at several sizes; print a table, and write a record if asked.

    Args:
        overrides: as for `zoo train`.
        timing: how to measure.
        sweep: every recipe that gradients train, each on its own data, with the overrides on top.
        out: the record, as JSON.
        grow: a setting with several values, such as "data.batch_size=32,64,128".
        sampling: how fast the model draws, not how fast it trains.

    Returns:
        What was measured of each.

    Raises:
        ZooError: it does not compose, or cannot be trained here.
    """
    quiet_lightning()
    setting, values = parse(grow) if grow else ("", [])
    jobs = [list(overrides)]
    if sweep:
        jobs = [[f"model={name}", *overrides] for name in recipes("model")]
    elif grow:
        jobs = [[*overrides, f"{setting}={value:g}"] for value in values]
    found, failed = [], []
    for job in track(jobs, "measuring", console=Console(stderr=True), transient=True, disable=len(jobs) < 2):
        try:
            cfg = compose(*job)
            measured = sampling_speed(cfg, timing.seconds * timing.rounds) if sampling else measure(cfg, timing, sweep)
        except ZooError as error:  # a recipe that this data does not suit, in a sweep
            if not sweep:
                raise
            failed.append(f"{job[0]}: {error}")
            continue
        if measured is not None:
            chosen = dict(override.partition("=")[::2] for override in job)
            name = chosen.get("experiment") or chosen.get("model") or cfg.model.name
            found.append({"overrides": job, **measured, "model": name} | ({setting: chosen[setting]} if grow else {}))
    if not found:
        raise ZooError("there is nothing to time: a baseline is fitted once, and takes no training steps.")
    report(found, Console(width=None if sys.stdout.isatty() else 260))
    if len(found) == 1 and "shares" in found[0]:
        print("time of a step:", ", ".join(f"{name} {share:.0%}" for name, share in found[0]["shares"].items()))
    whole = to_json(found, timing)
    if grow and not sampling:
        whole["exponents"] = exponents(values, found)
        told = ", ".join(f"{key} as its power {p:.2f}" for key, p in whole["exponents"].items())
        print(f"with {setting} grow {told}")
    for line in failed:
        print(f"zoo: {line}", file=sys.stderr)
    if out is not None:
        write_text(out, json.dumps(whole, indent=1) + "\n")
        print(f"zoo: wrote {out}", file=sys.stderr)
    return found


def measure(cfg: DictConfig, timing: Timing, sweep: bool = False) -> dict[str, Any] | None:
    """Train for as long as it takes; None for a model that is fitted, not trained.

    Raises:
        ZooError: it cannot be trained here, or is too large for a sweep.
    """
    cfg.trainer.max_steps = FOREVER
    cfg.trainer.val_check_interval = FOREVER
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data, waits = build_data(cfg), None
    model = build_model(cfg, data)
    if isinstance(model, Fitted):
        return None
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if sweep and weights > LARGEST and not torch.cuda.is_available():
        raise ZooError(f"{weights:,} weights take a processor minutes for a step: measure it alone.")
    waits = TimedLoader(data.train_dataloader)
    data.train_dataloader = lambda: waits  # type: ignore[method-assign, assignment, return-value]
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        run = RunFolder(folder)
        run.samples.mkdir()
        cfg.trainer.checkpoint_every = None
        console = Console(file=StringIO(), force_terminal=True)
        trainer = build_trainer(TrainingContext(cfg, run, model, data, console))
        found: dict[str, Any] = {}
        watch = Timer(
            None,
            timing.rounds,
            timing.seconds,
            timing.warm,
            waits,
            lambda: found.update(peak_gb=peak_memory(model.device) / 1e9),
        )
        bare: ReferenceLoop | None = None
        if timing.bare and trainer.world_size == 1 and trainer.precision in AUTOCAST:
            L.seed_everything(cfg.seed, workers=True, verbose=False)
            clip = cfg.trainer.get("gradient_clip_val") or 0.0
            bare = ReferenceLoop(
                build_model(cfg, data), data, str(trainer.precision), trainer.strategy.root_device, FOREVER, clip
            )
            watch.other = bare.run
            compile_networks(bare.model, cfg.trainer.compile)
        trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        with suppress(TimingDone):
            trainer.fit(model, datamodule=data)
    seconds = statistics.median(lap.wall for lap in watch.own) / watch.batches
    x = data.fetch(data.train, torch.arange(cfg.data.batch_size), torch.Generator(), train=True)[0]
    unit = data.spec.x.unit
    per_batch = data.spec.x.units(x)
    found |= {
        "model": cfg.model.name,
        "data": data.spec.name,
        "batch": cfg.data.batch_size,
        "parameters": weights,
        "precision": str(trainer.precision),
        "device": str(model.device),
        "unit": unit,
        "per_second": per_batch / seconds,
        "ms": 1e3 * seconds,
        "cpu_ms": 1e3 * statistics.median(lap.cpu for lap in watch.own) / watch.batches,
        "data_share": statistics.median(w / lap.wall for w, lap in zip(watch.waited, watch.own, strict=True)),
        "batches_a_round": watch.batches,
    }
    if bare is not None:
        found |= relative_speed(watch) | flop_report(bare, seconds)
    return found


def relative_speed(watch: Timer) -> dict[str, Any]:
    """The bare loop's time, and the trainer's speed in units of its: median, and quartiles of the rounds.

    Each round of the trainer lies between two of the other, whose mean it is compared with.
    """
    ratios = {
        clock: [
            (getattr(before, clock) + getattr(after, clock)) / 2 / getattr(own, clock)
            for before, own, after in zip(watch.others, watch.own, watch.others[1:], strict=False)
        ]
        for clock in ("wall", "cpu")
    }
    wall = ratios["wall"] * (3 if len(watch.own) == 1 else 1)
    low, _, high = statistics.quantiles(wall, n=4)
    return {
        "bare_ms": 1e3 * statistics.median(lap.wall for lap in watch.others) / watch.batches,
        "ratio": statistics.median(wall),
        "spread": (low, high),
        "cpu_ratio": statistics.median(ratios["cpu"]),
    }


def flop_report(bare: ReferenceLoop, seconds: float) -> dict[str, Any]:
    """Floating-point operations of matrix products and convolutions, against what a matrix product reaches alone."""
    with FlopCounter() as counted:
        bare.run(1)
    rate, reached = counted.total / seconds, matmul(bare.device, bare.dtype or torch.float32)
    return {
        "operations": counted.total,
        "flops": rate / 1e9,
        "matmul_flops": reached / 1e9,
        "of_matmul": rate / reached,
        "step_mb": memory(lambda: bare.run(1), bare.device) / 1e6,
        "shares": time_breakdown(lambda: bare.run(5), bare.device),
    }


def report(found: list[dict[str, Any]], console: Console) -> None:
    """A table, a row for each measurement, in the form that Markdown has too."""
    trained = all("data_share" in row for row in found)
    lines = {key: (key, "{}") for key in found[0] if "." in key}  # what was made to grow
    lines |= LINES if trained else {key: (heading, form) for key, heading, form in HEADINGS}
    shown = {key: how for key, how in lines.items() if any(key in row for row in found)}
    table = Table(box=box.MARKDOWN)
    for heading, form in shown.values():
        table.add_column(heading, justify="left" if form == "{}" else "right", no_wrap=True)
    for row in found:
        table.add_row(*(text(row.get(key), form) for key, (_, form) in shown.items()))
    console.print(table)


def text(value: Any, form: str) -> str:
    """A cell."""
    if value is None:
        return ""
    return " - ".join(map(form.format, value)) if isinstance(value, (tuple, list)) else form.format(value)


def to_json(found: list[dict[str, Any]], timing: Timing) -> dict[str, Any]:
    """What was measured, how and on what."""
    about = {key: value for key, value in provenance().items() if key != "commit"}
    return {
        "command": "zoo bench",
        "timing": asdict(timing),
        "threads": torch.get_num_threads(),
        **about,
        "measured": found,
    }
