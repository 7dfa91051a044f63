"""Captions of held-out pictures, beside the caption of the nearest training picture."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Tokens
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsCaptioning


@register("suite", "captions")
class CaptionSuite(Suite):
    """Likelihood of captions, and greedy captions that are right: whole, by words, and by class."""

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that caption, on data with captions."""
        given = data.spec.condition
        return supports(model, SupportsCaptioning) and isinstance(given, Tokens) and bool(given.tokenizer)

    def measure(self, context: EvaluationContext) -> Scores:
        """Nats per caption, and shares of right captions.

        The share "exact" is of whole captions, and "words" of words in the right place. The name "nearest" marks the
        caption of the training picture with the least distance of pixels.
        """
        model: Any = context.model
        nats, truth, found, nearest = [], [], [], []
        pictures, captions = training_pairs(context)
        for batch in context.batches():
            nats.append(-model.caption_log_prob(batch.x, batch.y).cpu())
            truth += texts_of(model, batch.y)
            found += model.caption(batch.x)
            near = torch.cdist(batch.x.flatten(1).cpu(), pictures).argmin(1)
            nearest += texts_of(model, captions[near])
        values = {
            "caption_nll": torch.cat(nats).double(),
            "caption_exact": shares(found, truth, exact),
            "caption_words": shares(found, truth, words),
            "caption_exact_nearest": shares(nearest, truth, exact),
            "caption_words_nearest": shares(nearest, truth, words),
        }
        listed: list[list[str]] | None = getattr(context.data, "class_texts", None)
        if listed is not None:
            place = {text: number for number, texts in enumerate(listed) for text in texts}
            classes, wanted = ([place.get(text, -1) for text in texts] for texts in (found, truth))
            values["caption_class"] = (torch.tensor(classes) == torch.tensor(wanted)).double()
        return {
            context.name(name): Metric(
                float(x.mean()), "lower" if name == "caption_nll" else "higher", error=standard_error(x)
            )
            for name, x in values.items()
        }


def training_pairs(context: EvaluationContext) -> tuple[Tensor, Tensor]:
    """Training pictures as vectors (N, D), and their captions (N, T)."""
    train = context.data.train
    batches = [
        Batch.of(context.data.fetch(train, some, make_generator(context.protocol.seed), train=False))
        for some in torch.arange(len(train[0])).split(BATCH)
    ]
    return torch.cat([b.x.flatten(1) for b in batches]), torch.cat([b.y for b in batches])


def texts_of(model: Any, rows: Tensor) -> list[str]:
    """Texts of tokens (N, T), negative for padding."""
    return [model.tokenizer.decode([token for token in row if token >= 0]) for row in rows.tolist()]


def exact(text: str, truth: str) -> float:
    """Whether two texts are equal."""
    return float(text == truth)


def words(text: str, truth: str) -> float:
    """Share of the words of the truth that the text has in the same place."""
    wanted = truth.split()
    return sum(a == b for a, b in zip(text.split(), wanted, strict=False)) / len(wanted)


def shares(texts: list[str], truth: list[str], score: Any) -> Tensor:
    """Scores (N,) of texts."""
    return torch.tensor([score(a, b) for a, b in zip(texts, truth, strict=True)], dtype=torch.float64)
