"""Probes: the class of data from a model's vectors, by simple classifiers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Label
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.evaluation.context import MAX_SAMPLES, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.probe import NEIGHBOURS, knn_hits, linear_hits
from zoo.models.abilities import SupportsDataEmbedding
from zoo.models.ability import supports
from zoo.models.base import Model

PROBES = {f"knn{NEIGHBOURS}_accuracy": knn_hits, "linear_accuracy": linear_hits}
FEW, CHOICES = 10, 5  # labels of each class, and random choices of them
BATCH = 250


@register("suite", "probe")
class ProbeSuite(Suite):
    """Accuracy of nearest neighbours and of a linear classifier on the vectors of a model; the model stays as it is.

    The classifiers read the labels of the training split, at most 10,000 of them, or ten of each class. Names that end
    with "raw" are of the same classifiers on the raw values of the data.
    """

    order = 26

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that embed data, on data with class labels."""
        return supports(model, SupportsDataEmbedding) and isinstance(data.spec.condition, Label)

    def measure(self, context: EvaluationContext) -> Scores:
        """Accuracies. Those of few labels are means over five random choices of them."""
        seed, train = context.protocol.seed, context.data.train
        rows = torch.randperm(len(train[0]), generator=make_generator(seed, 7))[:MAX_SAMPLES]
        known = [
            Batch.of(context.data.fetch(train, some, make_generator(seed), train=False)).to(context.model.device)
            for some in rows.split(BATCH)
        ]
        (*inputs, labels), (*held, held_labels) = (vectors_of(context.model, b) for b in (known, context.batches()))
        few = [few_of_each(labels, seed + choice) for choice in range(CHOICES)]
        scores: Scores = {}
        for kind, x, held_x in zip(("", "_raw"), inputs, held, strict=True):
            for name, probe in PROBES.items():
                hits = probe(x, labels, held_x, held_labels)
                scores[context.name(name + kind)] = Metric(float(hits.mean()), "higher", error=standard_error(hits))
            hits = torch.stack([linear_hits(x[some], labels[some], held_x, held_labels) for some in few]).mean(0)
            name = context.name(f"linear_accuracy_{FEW}_per_class{kind}")
            scores[name] = Metric(float(hits.mean()), "higher", error=standard_error(hits))
        return scores


def vectors_of(model: Any, batches: Iterable[Batch]) -> list[Tensor]:
    """Vectors of a model (N, D), raw values (N, V) and labels (N,) of batches, on the CPU."""
    parts = [(model.embed_data(b.x).float().cpu(), b.x.flatten(1).float().cpu(), b.y.cpu()) for b in batches]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def few_of_each(labels: Tensor, seed: int) -> Tensor:
    """Random places (M,) of labels (N,), at most `FEW` of each class."""
    order = torch.randperm(len(labels), generator=make_generator(seed, 8))
    chosen = [order[labels[order] == label][:FEW] for label in labels.unique()]
    return torch.cat(chosen)
