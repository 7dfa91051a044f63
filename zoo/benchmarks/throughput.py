"""Training throughput of a recipe: through the trainer, and relative to a reference loop."""

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
from rich.console import Console
from rich.progress import track

from zoo.benchmarks.profiling import FlopCounter, matmul, memory, peak_memory, time_breakdown
from zoo.benchmarks.reference_loop import AUTOCAST, ReferenceLoop
from zoo.benchmarks.report import report
from zoo.benchmarks.sampling_speed import sampling_speed
from zoo.benchmarks.scaling import exponents, parse
from zoo.benchmarks.timer import TimedLoader, Timer, TimingDone
from zoo.config.compose import compose
from zoo.config.recipes import recipes
from zoo.core.errors import ZooError
from zoo.io.atomic import write_text
from zoo.io.provenance import provenance
from zoo.runs.folder import RunFolder
from zoo.training.context import TrainingContext
from zoo.training.train import build_data, build_model
from zoo.training.trainer import build_trainer, compile_networks, quiet_lightning

MAX_CPU_WEIGHTS = 50_000_000  # in a sweep on a CPU: larger models take minutes per step
ENDLESS = 10**9  # batches: training never ends before it was timed


@dataclass(frozen=True)
class Timing:
    """Measurement settings.

    Args:
        rounds: number of rounds, alternating with as many of the reference loop.
        seconds: length of a round.
        warm: seconds of warm-up.
        bare: compare with `zoo.benchmarks.reference_loop`.
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
    """Measure one recipe, all recipes, or one at several sizes; print a table, and optionally write a record.

    Args:
        overrides: as for `zoo train`.
        timing: measurement settings.
        sweep: every recipe trained by gradients, on its default data, with the overrides on top.
        out: the record, as JSON.
        grow: a setting with several values, such as "data.batch_size=32,64,128".
        sampling: measure sampling instead of training.

    Returns:
        One result per measurement.

    Raises:
        ZooError: the configuration is invalid, or cannot be trained here.
    """
    quiet_lightning()
    setting, values = parse(grow) if grow else ("", [])
    jobs = [list(overrides)]
    if sweep:
        jobs = [[f"model={name}", *overrides] for name in recipes("model")]
    elif grow:
        jobs = [[*overrides, f"{setting}={value:g}"] for value in values]
    results, failed = [], []
    for job in track(jobs, "measuring", console=Console(stderr=True), transient=True, disable=len(jobs) < 2):
        try:
            cfg = compose(*job)
            measured = sampling_speed(cfg, timing.seconds * timing.rounds) if sampling else measure(cfg, timing, sweep)
        except ZooError as error:  # in a sweep: a recipe that does not fit the data
            if not sweep:
                raise
            failed.append(f"{job[0]}: {error}")
            continue
        if measured is not None:
            chosen = dict(override.partition("=")[::2] for override in job)
            name = chosen.get("experiment") or chosen.get("model") or cfg.model.name
            results.append({"overrides": job, **measured, "model": name} | ({setting: chosen[setting]} if grow else {}))
    if not results:
        raise ZooError("nothing to time: baselines are fitted once, without training steps. Choose another model.")
    report(results, Console(width=None if sys.stdout.isatty() else 260))
    if len(results) == 1 and "shares" in results[0]:
        print("time of a step:", ", ".join(f"{name} {share:.0%}" for name, share in results[0]["shares"].items()))
    record = to_json(results, timing)
    if grow and not sampling:
        record["exponents"] = exponents(values, results)
        growth = ", ".join(f"{key} as its power {p:.2f}" for key, p in record["exponents"].items())
        print(f"with {setting} grow {growth}")
    for line in failed:
        print(f"zoo: {line}", file=sys.stderr)
    if out is not None:
        write_text(out, json.dumps(record, indent=1) + "\n")
        print(f"zoo: wrote {out}", file=sys.stderr)
    return results


def measure(cfg: DictConfig, timing: Timing, sweep: bool = False) -> dict[str, Any] | None:
    """Time the training of one recipe; None for a model that is fitted without gradients.

    Raises:
        ZooError: it cannot be trained here, or is too large for a sweep.
    """
    cfg.trainer.max_steps = ENDLESS
    cfg.trainer.val_check_interval = ENDLESS
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data, loader = build_data(cfg), None
    model = build_model(cfg, data)
    n_weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not n_weights:
        return None
    if sweep and n_weights > MAX_CPU_WEIGHTS and not torch.cuda.is_available():
        raise ZooError(f"{n_weights:,} weights take minutes per step on a CPU. Measure this model alone.")
    loader = TimedLoader(data.train_dataloader)
    data.train_dataloader = lambda: loader  # type: ignore[method-assign, assignment, return-value]
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        run = RunFolder(folder)
        run.samples.mkdir()
        cfg.trainer.checkpoint_every = None
        console = Console(file=StringIO(), force_terminal=True)
        trainer = build_trainer(TrainingContext(cfg, run, model, data, console))
        results: dict[str, Any] = {}
        timer = Timer(
            None,
            timing.rounds,
            timing.seconds,
            timing.warm,
            loader,
            lambda: results.update(peak_gb=peak_memory(model.device) / 1e9),
        )
        reference: ReferenceLoop | None = None
        if timing.bare and trainer.world_size == 1 and trainer.precision in AUTOCAST:
            L.seed_everything(cfg.seed, workers=True, verbose=False)
            clip = cfg.trainer.get("gradient_clip_val") or 0.0
            reference = ReferenceLoop(
                build_model(cfg, data), data, str(trainer.precision), trainer.strategy.root_device, ENDLESS, clip
            )
            timer.other = reference.run
            compile_networks(reference.model, cfg.trainer.compile)
        trainer.callbacks.append(timer)  # type: ignore[attr-defined]
        with suppress(TimingDone):
            trainer.fit(model, datamodule=data)
    seconds = statistics.median(lap.wall for lap in timer.trainer_rounds) / timer.batches
    x = data.fetch(data.train, torch.arange(cfg.data.batch_size), torch.Generator(), train=True)[0]
    unit = data.spec.x.unit
    per_batch = data.spec.x.units(x)
    results |= {
        "model": cfg.model.name,
        "data": data.spec.name,
        "batch": cfg.data.batch_size,
        "parameters": n_weights,
        "precision": str(trainer.precision),
        "device": str(model.device),
        "unit": unit,
        "per_second": per_batch / seconds,
        "ms": 1e3 * seconds,
        "cpu_ms": 1e3 * statistics.median(lap.cpu for lap in timer.trainer_rounds) / timer.batches,
        "data_share": statistics.median(
            w / lap.wall for w, lap in zip(timer.wait_seconds, timer.trainer_rounds, strict=True)
        ),
        "batches_a_round": timer.batches,
    }
    if reference is not None:
        results |= relative_speed(timer) | flop_report(reference, seconds)
    return results


def relative_speed(timer: Timer) -> dict[str, Any]:
    """Time of the reference loop, and the trainer's relative speed: median, and quartiles over rounds.

    Each round of the trainer is compared with the mean of the two reference rounds around it.
    """
    ratios = {
        clock: [
            (getattr(before, clock) + getattr(after, clock)) / 2 / getattr(own, clock)
            for before, own, after in zip(
                timer.other_rounds, timer.trainer_rounds, timer.other_rounds[1:], strict=False
            )
        ]
        for clock in ("wall", "cpu")
    }
    wall = ratios["wall"] * (3 if len(timer.trainer_rounds) == 1 else 1)
    low, _, high = statistics.quantiles(wall, n=4)
    return {
        "bare_ms": 1e3 * statistics.median(lap.wall for lap in timer.other_rounds) / timer.batches,
        "ratio": statistics.median(wall),
        "spread": (low, high),
        "cpu_ratio": statistics.median(ratios["cpu"]),
    }


def flop_report(reference: ReferenceLoop, seconds: float) -> dict[str, Any]:
    """Floating-point operations, relative to the speed of a single matrix product, memory, and slowest operations."""
    with FlopCounter() as counted:
        reference.run(1)
    rate, peak = counted.total / seconds, matmul(reference.device, reference.dtype or torch.float32)
    return {
        "operations": counted.total,
        "flops": rate / 1e9,
        "matmul_flops": peak / 1e9,
        "of_matmul": rate / peak,
        "step_mb": memory(lambda: reference.run(1), reference.device) / 1e6,
        "shares": time_breakdown(lambda: reference.run(5), reference.device),
    }


def to_json(results: list[dict[str, Any]], timing: Timing) -> dict[str, Any]:
    """Record of the results, the settings and the machine."""
    about = {key: value for key, value in provenance().items() if key != "commit"}
    return {
        "command": "zoo bench",
        "timing": asdict(timing),
        "threads": torch.get_num_threads(),
        **about,
        "measured": results,
    }
