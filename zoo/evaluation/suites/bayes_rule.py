"""Classes of images by Bayes' rule, from likelihoods given the texts of classes."""

from typing import Any

import torch

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import reads_text, standard_error
from zoo.models.abilities import SupportsLogProb
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "bayes_rule")
class BayesRuleSuite(Suite):
    """Accuracy of the class whose texts give an image the highest likelihood; all classes are equally probable."""

    order = 25

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with exact likelihoods given a text, on data that list the texts of classes."""
        listed = getattr(data, "class_texts", None)
        return reads_text(model) and supports(model, SupportsLogProb) and listed is not None

    def measure(self, context: EvaluationContext) -> Scores:
        """Share of images of the right class; each text of a class is equally probable."""
        model, listed = context.model, context.data.class_texts  # type: ignore[attr-defined]
        tokens: list[Any] = [model.text_condition(texts).to(model.device) for texts in listed]
        right = []
        for x, y in context.batches():
            each = [torch.stack([model.log_prob(x, row.expand(len(x), -1)) for row in rows]) for rows in tokens]
            means = torch.stack([one.logsumexp(0) - torch.tensor(float(len(one))).log() for one in each], 1)  # (B, K)
            has = torch.stack([(y[:, None] == rows).all(2).any(1) for rows in tokens], 1)  # the caption is of the class
            right.append(has.gather(1, means.argmax(1, keepdim=True)).double().cpu())
        values = torch.cat(right).flatten()
        return {
            context.name("class_by_likelihood"): Metric(float(values.mean()), "higher", error=standard_error(values))
        }
