"""Metrics of samples: distances, diversity, memorisation, classes, modes."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import Better, EvaluationContext, Metric, Scores, count
from zoo.evaluation.suites.base import Suite
from zoo.metrics.c2st import FOLDS, two_sample_accuracy
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.memorisation import memorisation
from zoo.metrics.mmd import kernel_distance
from zoo.metrics.modes import class_histogram_kl, points_on_modes
from zoo.metrics.prdc import NEIGHBOURS, prdc
from zoo.metrics.vendi import vendi
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model

N_PROBED = 2_000  # samples in the memorisation probe, which searches all training data


@register("suite", "samples")
class SampleSuite(Suite):
    """Distance between samples and held-out data, and a probe for copies of training data."""

    order = 30
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that sample, except text and data with missing values."""
        missing = getattr(data.spec.x, "missing", False)
        return supports(model, SupportsSampling) and not model.spec.text and not missing

    def measure(self, context: EvaluationContext) -> Scores:
        """Frechet and kernel distance, precision, recall, density, coverage, diversity, memorisation, classes."""
        return samples(context)


@register("suite", "modes")
class ModeSuite(Suite):
    """Modes of a known mixture that samples cover."""

    order = 40
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Data from a mixture with known centers."""
        return supports(model, SupportsSampling) and getattr(data, "centers", None) is not None

    def measure(self, context: EvaluationContext) -> Scores:
        """Modes found, and the fraction of samples near one."""
        return modes(context)


def samples(context: EvaluationContext) -> Scores:
    """Compare samples with held-out data and with training data."""
    drawn, asked = context.drawn
    held, labels = context.held_out
    f = context.features
    real, fake, other = f(held), f(drawn), f(context.training)
    n, scores = len(drawn), dict[str, Metric]()

    def add(metric: str, better: Better, measure: Callable[[Tensor], float], needs: int = 1, n: int = n) -> None:
        """Measure, where there are enough samples; the reference is left out for few training data."""
        name = context.name(f"{metric}_{f.name}", n)
        if lacking := lack(needs, {"held-out samples": len(real), "samples": len(fake)}):
            scores[name] = Metric(math.nan, better, note=lacking)
        else:
            scores[name] = Metric(measure(fake), better, measure(other) if len(other) >= needs else None)

    add("fd", "lower", lambda z: float(frechet(moments(z), moments(real))), 2)
    if f.dim >= 10:  # not meaningful in few dimensions
        add("kd", "lower", lambda z: kernel_distance(z, real), 2)
    equal = min(n, len(real))
    near = cache(lambda z: in_equal_parts(real, z))
    for key in ("precision", "recall", "density", "coverage"):
        better: Better = "reference" if key == "density" else "higher"
        add(key, better, lambda z, key=key: near(z)[key], NEIGHBOURS + 1, equal)  # type: ignore[misc]
    add("two_sample", "reference", lambda z: two_sample_accuracy(z, real, context.protocol.seed), FOLDS, equal)
    add("vendi", "reference", vendi)
    scores |= memorisation_scores(context)
    if f.n_classes:
        scores |= classes(context, f.classify(drawn), f.classify(held), asked, labels)
    return scores


def lack(needs: int, sizes: dict[str, int]) -> str:
    """Say which set is too small for a metric; empty if none is."""
    return next((f"not measured: fewer than {needs} {name}" for name, size in sizes.items() if size < needs), "")


def modes(context: EvaluationContext) -> Scores:
    """Count the Gaussians of the mixture that samples cover."""
    data: Any = context.data
    found, reference = (points_on_modes(x, data.centers, data.sigma) for x in (context.drawn[0], context.training))
    wanted: dict[str, tuple[str, Better]] = {
        "modes": ("modes", "higher"),
        "strict": ("modes_strict", "higher"),
        "high_quality": ("high_quality", "reference"),
        "kl": ("modes_kl", "lower"),
    }
    return named(context, wanted, found, reference)


def named(
    context: EvaluationContext,
    wanted: dict[str, tuple[str, Better]],
    found: dict[str, float],
    reference: dict[str, float],
) -> Scores:
    """Make metrics of samples; `wanted` maps keys to the name of the metric and its better direction."""
    n = len(context.drawn[0])
    return {context.name(name, n): Metric(found[k], better, reference[k]) for k, (name, better) in wanted.items()}


def in_equal_parts(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Precision, recall, density and coverage with as many samples as real data, averaged over all such parts.

    The metrics depend on the ratio of the two sizes.
    """
    size = min(len(real), len(fake))
    found = [prdc(real[:size], part) for part in fake.split(size) if len(part) == size]
    return {key: sum(part[key] for part in found) / len(found) for key in found[0]}


def memorisation_scores(context: EvaluationContext) -> Scores:
    """Compare distances to the nearest training data, in data space, of samples and of held-out data.

    For the real data reference, training data take the place of samples, and are removed from the training data.
    Training data are limited by memory; the names then contain their number.
    """
    n, size = min(N_PROBED, context.n), len(context.data.train[0])
    order = torch.randperm(size, generator=make_generator(context.protocol.seed, 3))[: context.room]
    within = f"_in_{count(len(order))}" if len(order) < size else ""
    apart = min(n, len(order) // 4)  # real data in place of samples
    views = context.data.views
    everything = context.real(context.data.train, order, train=True)[0]
    held = context.held_out[0][:N_PROBED]
    found = memorisation(context.drawn[0][:n], held, everything, views)
    reference = memorisation(everything[:apart], held, everything[apart:], views) if apart else {}
    names = {"ratio": "nearest_train_ratio", "copied": "copied", "authentic": "authentic"}
    return {
        context.name(name + within, n): Metric(found[k], "reference", reference.get(k)) for k, name in names.items()
    }


def classes(context: EvaluationContext, drawn: Tensor, held: Tensor, asked: Tensor, labels: Tensor) -> Scores:
    """Compare the predicted classes of samples with those of held-out data."""
    f = context.features
    trained = f.classify(context.training)
    found, reference = (class_histogram_kl(z, held, f.n_classes) for z in (drawn, trained))
    wanted: dict[str, tuple[str, Better]] = {
        "seen": (f"classes_{f.name}", "higher"),
        "strict": (f"classes_strict_{f.name}", "higher"),
        "kl": (f"class_kl_{f.name}", "lower"),
        "largest_deviation": (f"class_share_off_{f.name}", "lower"),
    }
    scores = named(context, wanted, found, reference)
    if context.model.conditional:
        right, ideal = float((drawn == asked).float().mean()), float((held == labels).float().mean())
        scores[context.name(f"class_accuracy_{f.name}", len(drawn))] = Metric(right, "higher", ideal)
    return scores
