"""What can be measured of a trained model: groups of metrics, each asking the model for what it needs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import Better, EvaluationContext, Metric, Scores, count
from zoo.evaluation.suites.base import Suite
from zoo.metrics.c2st import two_sample_accuracy
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.memorisation import memorisation
from zoo.metrics.mmd import kernel_distance
from zoo.metrics.modes import class_histogram_kl, points_on_modes
from zoo.metrics.prdc import prdc
from zoo.metrics.vendi import vendi
from zoo.models.abilities import SupportsSampling, supports
from zoo.models.base import Model

PROBED = 2_000  # samples in the memorisation probe, which goes through all training data


# -- samples -----------------------------------------------------------------------------------------------------


@register("suite", "samples")
class SampleSuite(Suite):
    """Distance of samples from held-out data, with a probe for copies of training data."""

    order = 30

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that draw anything but text."""
        return supports(model, SupportsSampling) and not model.spec.text

    def measure(self, context: EvaluationContext) -> Scores:
        """Frechet and kernel distance, precision, recall, density, coverage, diversity, memorisation, classes."""
        return samples(context)


@register("suite", "modes")
class ModeSuite(Suite):
    """Modes of a known mixture that samples reach."""

    order = 40

    def applies(self, model: Model, data: DataModule) -> bool:
        """Data that is drawn from a mixture with known centers."""
        return supports(model, SupportsSampling) and getattr(data, "centers", None) is not None

    def measure(self, context: EvaluationContext) -> Scores:
        """Modes found, and samples near one."""
        return modes(context)


def samples(bench: EvaluationContext) -> Scores:
    """Compare samples with held-out data and with training data."""
    drawn, asked = bench.drawn
    held, labels = bench.held_out
    f = bench.features
    real, fake, other = f(held), f(drawn), f(bench.training)
    n, scores = len(drawn), dict[str, Metric]()

    def add(metric: str, better: Better, measure: Callable[[Tensor], float], n: int = n) -> None:
        scores[bench.name(f"{metric}_{f.name}", n)] = Metric(measure(fake), better, measure(other))

    add("fd", "lower", lambda z: float(frechet(moments(z), moments(real))))
    if f.dim >= 10:  # it compares directions, of which two numbers have few
        add("kd", "lower", lambda z: kernel_distance(z, real))
    equal = min(n, len(real))
    near = {id(z): in_equal_parts(real, z) for z in (fake, other)}
    for key in ("precision", "recall", "density", "coverage"):
        better: Better = "floor" if key == "density" else "higher"
        add(key, better, lambda z, key=key: near[id(z)][key], equal)  # type: ignore[misc]
    add("two_sample", "floor", lambda z: two_sample_accuracy(z, real, bench.protocol.seed), equal)
    add("vendi", "floor", vendi)
    scores |= memorisation_scores(bench)
    if f.n_classes:
        scores |= classes(bench, f.classify(drawn), f.classify(held), asked, labels)
    return scores


def modes(bench: EvaluationContext) -> Scores:
    """Which of the Gaussians that points are drawn from a model finds."""
    data: Any = bench.data
    found, floor = (points_on_modes(x, data.centers, data.sigma) for x in (bench.drawn[0], bench.training))
    wanted: dict[str, tuple[str, Better]] = {
        "modes": ("modes", "higher"),
        "strict": ("modes_strict", "higher"),
        "high_quality": ("high_quality", "floor"),
        "kl": ("modes_kl", "lower"),
    }
    return named(bench, wanted, found, floor)


def named(
    bench: EvaluationContext, wanted: dict[str, tuple[str, Better]], found: dict[str, float], floor: dict[str, float]
) -> Scores:
    """Scores of samples: key of what was found -> (name of the metric, what it should be like)."""
    n = len(bench.drawn[0])
    return {bench.name(name, n): Metric(found[key], better, floor[key]) for key, (name, better) in wanted.items()}


def in_equal_parts(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Precision, recall, density and coverage with as many samples as real data, averaged over all such parts.

    These depend on the ratio of the two numbers: ten samples for each real one cover almost anything.
    """
    size = min(len(real), len(fake))
    found = [prdc(real[:size], part) for part in fake.split(size) if len(part) == size]
    return {key: sum(part[key] for part in found) / len(found) for key in found[0]}


def memorisation_scores(bench: EvaluationContext) -> Scores:
    """The memorisation probe, in the data's own space: nearest training data of samples against those of held-out ones.

    Its floor comes from training data that play the samples' part, and are themselves left out of the training data.
    Where these are too many to hold, as many as fit are looked through, and the names say how many.
    """
    n, size = min(PROBED, bench.n), len(bench.data.train[0])
    order = torch.randperm(size, generator=make_generator(bench.protocol.seed, 3))[: bench.room]
    within = f"_in_{count(len(order))}" if len(order) < size else ""
    apart = min(n, len(order) // 4)  # real data in the samples' place
    everything = bench.real(bench.data.train, order, train=True)[0]
    held = bench.held_out[0][:PROBED]
    found = memorisation(bench.drawn[0][:n], held, everything)
    floor = memorisation(everything[:apart], held, everything[apart:])
    names = {"ratio": "nearest_train_ratio", "copied": "copied", "authentic": "authentic"}
    return {bench.name(name + within, n): Metric(found[key], "floor", floor[key]) for key, name in names.items()}


def classes(bench: EvaluationContext, drawn: Tensor, held: Tensor, asked: Tensor, labels: Tensor) -> Scores:
    """Which classes a classifier sees in samples, against those that it sees in held-out data."""
    f = bench.features
    trained = f.classify(bench.training)
    found, floor = (class_histogram_kl(z, held, f.n_classes) for z in (drawn, trained))
    wanted: dict[str, tuple[str, Better]] = {
        "seen": (f"classes_{f.name}", "higher"),
        "strict": (f"classes_strict_{f.name}", "higher"),
        "kl": (f"class_kl_{f.name}", "lower"),
        "largest_deviation": (f"class_share_off_{f.name}", "lower"),
    }
    scores = named(bench, wanted, found, floor)
    if bench.model.conditional:
        right, ideal = float((drawn == asked).float().mean()), float((held == labels).float().mean())
        scores[bench.name(f"class_accuracy_{f.name}", len(drawn))] = Metric(right, "higher", ideal)
    return scores
