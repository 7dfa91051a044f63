"""Diagnosis of a finished training from its logged metrics: the name of each problem, its evidence and a remedy."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from zoo.core.counted import counted

KL_MIN = 1.0  # nats: below it the latents of a VAE carry almost nothing
SPREAD_MIN = 0.3  # total variance of samples over that of the data
DETAIL_MIN, DETAIL_MAX = 0.35, 1.5  # mean squared difference of neighbouring pixels of samples over that of the data
DENSITY_MIN = 0.7  # number of held-out vectors near a sample over that near a held-out vector
CLASSES_MIN = 0.4  # effective number of classes of samples over that of the data
NOISE = 0.02, 0.01  # relative, and absolute: smaller changes of a metric are noise
SHORT = 100  # batches: samples of a shorter training say nothing about the model
LOST = 0.1  # share of the whole improvement that is lost again after the best validation
GAINED = 0.1  # share of the whole improvement that comes in the last fifth of the training

Curve = Sequence[tuple[int, float]]  # (batch, value)


def read_curves(table: Path) -> dict[str, Curve]:
    """The curves in a run's metrics.csv, by metric."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return dict(curves)


def diagnose(curves: dict[str, Curve], monitor: str) -> list[str]:
    """One sentence for each problem, with a remedy.

    Args:
        curves: logged metrics, by name.
        monitor: the validation metric that chooses the best weights; lower is better.
    """

    def last(name: str) -> float:
        return curves[name][-1][1] if curves.get(name) else math.nan

    trend = diagnose_trend(curves.get(monitor, ()), curves.get("train/loss", ()), monitor)
    batches = 1 + max((curve[-1][0] for curve in curves.values() if curve), default=SHORT)
    if batches < SHORT:
        few = counted(batches, "batch")
        return [f"too short: a model learns little in {few}. Train longer: trainer.max_steps=1000.", *trend]
    found = []
    if "val/reconstruction" in curves and last("val/kl") < KL_MIN:  # policies have a KL divergence too
        found.append(
            f"posterior collapse: the latents carry {last('val/kl'):.2f} nats, and all samples are alike. "
            "Set model.kl_warmup_steps to a third of the batches, lower model.beta or model.optimizer.lr, or choose "
            "model/encoder=mlp model/decoder=mlp."
        )
    if "train/loss_g" in curves:
        name, remedy = "mode collapse", "Raise model.r1_gamma tenfold, or choose model=r3gan."
    else:
        name, remedy = "little variety", "Divide model.optimizer.lr by three, or add data."
    if last("samples/spread") < SPREAD_MIN:
        found.append(f"{name}: the variance of samples is {last('samples/spread'):.0%} of the data's. {remedy}")
    if last("samples/detail") < DETAIL_MIN:
        found.append(
            f"blurred: neighbouring pixels of samples differ by {last('samples/detail'):.0%} of the data's square. "
            "Train longer, raise model.latent_dim, or choose model=diffusion."
        )
    if last("samples/detail") > DETAIL_MAX:
        found.append(
            f"grain: neighbouring pixels of samples differ by {last('samples/detail'):.0%} of the data's square. "
            "Train longer, halve model.optimizer.lr, or choose model=diffusion."
        )
    if last("samples/density") < DENSITY_MIN:
        found.append(
            f"samples far from the data: near a sample lie {last('samples/density'):.0%} of the points that lie near a "
            "point of the data. Train longer, or choose model=nsf or model=diffusion."
        )
    if last("samples/classes") < CLASSES_MIN:
        found.append(f"{name}: samples cover {last('samples/classes'):.0%} of the data's classes. {remedy}")
    return found + trend


def diagnose_trend(curve: Curve, training: Curve, monitor: str) -> list[str]:
    """Divergence, over-fitting, unsteadiness or an early end, from the validations; at most one of them.

    Args:
        curve: the monitored metric.
        training: the training loss, which separates over-fitting from divergence.
        monitor: name of the metric.
    """
    if any(not math.isfinite(value) for _, value in curve):
        return [f"diverged: {monitor} is not finite. Divide model.optimizer.lr by three."]
    if len(curve) < 2:
        return []
    (_, first), (end, final) = curve[0], curve[-1]
    when, best = min(curve, key=lambda point: point[1])
    improvement, noise = first - best, NOISE[0] * abs(best) + NOISE[1]
    if final - best > max(LOST * improvement, noise):
        since = [value for batch, value in training if batch > when]
        if len(since) > 3 and sum(since[-2:]) < sum(since[:2]):  # the training loss still falls
            name, remedy = "over-fitting", f"stop at trainer.max_steps={when + 1}, or add data"
        elif final - first > noise:
            name, remedy = "diverged", "divide model.optimizer.lr by three"
        else:
            name, remedy = "unsteady", "halve model.optimizer.lr"
        return [
            f"{name}: {monitor} was best at batch {when + 1} ({best:.4g}) and ends at {final:.4g}. "
            f"best.ckpt holds the best; for better results, {remedy}."
        ]
    before = [value for batch, value in curve if batch <= 0.8 * end]
    if len(curve) > 2 and before and min(before) - best > max(GAINED * improvement, noise):
        return [
            f"still falling: {(min(before) - best) / improvement:.0%} of the improvement of {monitor} came in the last "
            f"fifth. Train longer: trainer.max_steps={2 * (end + 1)}."
        ]
    return []
