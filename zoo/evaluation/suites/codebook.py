"""Use of the codebook."""

from typing import Any

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.codebook import code_perplexity, share_used
from zoo.models.abilities import SupportsCodebook
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "codebook")
class CodebookSuite(Suite):
    """Perplexity and use of the codebook, over a random part of the training data."""

    order = 75

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with a codebook."""
        return supports(model, SupportsCodebook)

    def measure(self, context: EvaluationContext) -> Scores:
        """Perplexity, share of codes in use, dead codes; held-out data have too few codes for a large codebook."""
        model: Any = context.model
        x = context.training
        counts = sum(model.code_counts(part.to(model.device)).cpu() for part in x.split(BATCH))
        size, name = counts.numel(), f"@{len(x)}_train"
        return {
            f"code_perplexity_of_{counts.shape[-1]}{name}": Metric(code_perplexity(counts), "higher"),
            f"codes_used{name}": Metric(share_used(counts), "higher"),
            f"dead_codes_of_{size}{name}": Metric(float((counts == 0).sum()), "lower"),
        }
