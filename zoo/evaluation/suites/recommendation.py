"""Rankings of items for held-out users."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Interactions
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.ranking import ndcg, recall
from zoo.models.abilities import SupportsRecommendation
from zoo.models.ability import supports
from zoo.models.base import Model

CUTS = {"ndcg100": (ndcg, 100), "recall20": (recall, 20), "recall50": (recall, 50)}


@register("suite", "recommendation")
class RecommendationSuite(Suite):
    """NDCG@100, recall@20 and recall@50 of the items that held-out users also chose, beside a ranking by popularity."""

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that recommend."""
        return supports(model, SupportsRecommendation) and isinstance(data.spec.x, Interactions)

    def measure(self, context: EvaluationContext) -> Scores:
        """Means over users; items that the model was given are left out of the ranking."""
        model: Any = context.model
        popularity = torch.zeros(context.data.spec.size)
        for batch in context.data.fitting_dataloader():
            popularity += Batch.of(batch).x.sum(0).cpu()
        found: dict[str, list[Tensor]] = {}
        for batch in context.batches():
            rankings = {"": model.score_items(batch.x).float(), "_popular": popularity.to(batch.x).expand_as(batch.x)}
            for kind, ranking in rankings.items():
                unseen = ranking.masked_fill(batch.x > 0, -torch.inf)
                for name, (metric, k) in CUTS.items():
                    found.setdefault(name + kind, []).append(metric(unseen, batch.y, k).cpu())
        scores: Scores = {}
        for name, parts in found.items():
            values = torch.cat(parts)
            scores[context.name(name)] = Metric(float(values.mean()), "higher", error=standard_error(values))
        return scores
