"""Retrieval between pictures and captions, and classification by texts alone."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.spaces import Tokens
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.ranking import found_at, found_by_chance
from zoo.models.abilities import SupportsDataEmbedding, SupportsEmbedding
from zoo.models.ability import supports
from zoo.models.base import Model

CUTS = (1, 5, 10)


@register("suite", "retrieval")
class RetrievalSuite(Suite):
    """Recall@1, 5 and 10 from pictures to captions and back, and zero-shot classification."""

    order = 25

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that embed texts and data, on data with captions."""
        able = supports(model, SupportsEmbedding) and supports(model, SupportsDataEmbedding)
        given = data.spec.condition
        return able and isinstance(given, Tokens) and bool(given.tokenizer)

    def measure(self, context: EvaluationContext) -> Scores:
        """Shares of queries with a right answer among the first k.

        The candidates of a picture are all distinct captions of the split. Those of a caption are all pictures, and
        each with this caption is right. The note has the number of candidates and the recall of a random order.
        """
        model: Any = context.model
        pictures, tokens = [], []
        for batch in context.batches():
            pictures.append(model.embed_data(batch.x).float().cpu())
            tokens.append(batch.y.cpu())
        distinct, which = torch.cat(tokens).unique(dim=0, return_inverse=True)  # (K, T) and (N,)
        texts = torch.cat([model.embed(self.texts(model, some)).float().cpu() for some in distinct.split(64)])
        cosines = F.normalize(torch.cat(pictures), dim=1) @ F.normalize(texts, dim=1).T  # (N, K)
        right = F.one_hot(which, len(distinct)) > 0
        scores: Scores = {}
        for direction, score, relevant in (("caption", cosines, right), ("picture", cosines.T, right.T)):
            for k in CUTS:
                hit = found_at(score, relevant, k)
                guess = float(found_by_chance(relevant.sum(1), score.shape[1], k).mean())
                note = f"{score.shape[1]} candidates; a random order: {guess:.3f}"
                name = context.name(f"{direction}_recall{k}")
                scores[name] = Metric(float(hit.mean()), "higher", error=standard_error(hit), note=note)
        return scores | self.zero_shot(context, torch.cat(pictures), [self.text(model, row) for row in distinct], which)

    def zero_shot(self, context: EvaluationContext, pictures: Tensor, captions: list[str], which: Tensor) -> Scores:
        """Accuracy of the class whose texts are nearest on average, for data that list the texts of classes."""
        listed: list[list[str]] | None = getattr(context.data, "class_texts", None)
        if listed is None:
            return {}
        model: Any = context.model
        classes = torch.stack([F.normalize(model.embed(texts).float().cpu(), dim=1).mean(0) for texts in listed])
        place = {text: number for number, texts in enumerate(listed) for text in texts}
        labels = torch.tensor([place[caption] for caption in captions])[which]
        right = ((pictures @ F.normalize(classes, dim=1).T).argmax(1) == labels).double()
        return {context.name("zero_shot_accuracy"): Metric(float(right.mean()), "higher", error=standard_error(right))}

    def texts(self, model: Any, rows: Tensor) -> list[str]:
        """Captions of tokens (N, T)."""
        return [self.text(model, row) for row in rows]

    def text(self, model: Any, row: Tensor) -> str:
        """The caption of tokens (T,)."""
        return str(model.tokenizer.decode(token for token in row.tolist() if token >= 0))
