"""Recognition of samples: whether a classifier of real data recognises the class that was asked for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Audio
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import reads_text
from zoo.models.abilities import SupportsLatents, SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "recognition")
class RecognitionSuite(Suite):
    """Intelligibility: the share of samples in which a recogniser of real recordings finds the class asked for.

    Each held-out recording has a sample of equal label or text. The reference is the share among the recordings.
    """

    order = 37
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models of sounds that are given a label, or a text of data that list the texts of classes."""
        listed = hasattr(data, "class_texts") and hasattr(data, "labelled")
        asked = model.conditional or (reads_text(model) and listed)
        return isinstance(data.spec.x, Audio) and supports(model, SupportsSampling) and asked

    def measure(self, context: EvaluationContext) -> Scores:
        """Shares of recognised samples: of the whole class, and of its parts, such as the word and the speaker.

        The name "shuffled" marks the negative control, in which the classes asked for are permuted. The name
        "reconstructed" marks held-out recordings after a model that also encodes and decodes, a bound for its prior.
        """
        held, given = (part[: context.n] for part in context.held_out)
        asked = classes_of(given, context)
        drawn = torch.cat(
            [context.sample(len(some), some, 7, number) for number, some in enumerate(given.split(BATCH))]
        )
        order = torch.randperm(len(asked), generator=make_generator(context.protocol.seed, 8))
        recognise = context.features.classify
        found, ideal = recognise(drawn), recognise(held)
        scores = compare(context, "recognised", found, ideal, asked)
        scores |= compare(context, "recognised_shuffled", found, ideal, asked[order])
        if supports(context.model, SupportsLatents):
            model: Any = context.model
            again = torch.cat([model.reconstruct(some.to(model.device)).cpu() for some in held.split(BATCH)])
            scores |= compare(context, "recognised_reconstructed", recognise(again.float()), ideal, asked)
        return scores


def classes_of(given: Tensor, context: EvaluationContext) -> Tensor:
    """Classes (N,) of labels (N,), or of texts (N, W) by the list of the data."""
    if not context.reads_text:
        return given
    model, data = context.model, context.data
    return classes_of_texts(given, [model.text_condition(texts) for texts in data.class_texts])  # type: ignore


def classes_of_texts(given: Tensor, listed: Sequence[Tensor]) -> Tensor:
    """Classes (N,) of texts (N, W): the number of the list (M, W) that has an equal row; -1 for none."""
    found = torch.full((len(given),), -1)
    for number, rows in enumerate(listed):
        found[(given[:, None] == rows.to(given)).all(2).any(1)] = number
    return found


def compare(context: EvaluationContext, name: str, found: Tensor, ideal: Tensor, asked: Tensor) -> Scores:
    """Shares of the recognised classes that are those asked for, of samples and of held-out data."""
    scores = {}
    for part, table in parts_of(context).items():
        values = [agreement(one, asked, table) for one in (found, ideal)]
        metric = "_".join(filter(None, [name, part, context.features.name]))
        scores[context.name(metric, len(asked))] = Metric(values[0], "higher", values[1])
    return scores


def parts_of(context: EvaluationContext) -> dict[str, Tensor]:
    """Tables (K,) from classes to the values that they are made of; the first is the class itself."""
    data: Any = getattr(context.data, "labelled", context.data)
    whole = torch.arange(context.features.n_classes)
    return {"": whole, **getattr(data, "label_parts", {})}


def agreement(found: Tensor, asked: Tensor, table: Tensor) -> float:
    """Share of classes (N,) whose value in a table (K,) is that of the class asked for; -1 is never right."""
    return float(((table[found] == table[asked.clamp(min=0)]) & (asked >= 0)).double().mean())
