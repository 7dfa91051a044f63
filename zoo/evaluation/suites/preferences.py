"""Rewards of pairs of answers."""

from typing import Any

import torch
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.spaces import Preference
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.models.abilities import SupportsAnswerRewards
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "preferences")
class PreferenceSuite(Suite):
    """Share of pairs whose chosen answer has the larger reward, and the nats of the preferences; chance is .5 and ln 2.

    The probability of a preference is the sigmoid of the difference of rewards. Equal rewards count as half.
    """

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with rewards, on pairs of answers."""
        return supports(model, SupportsAnswerRewards) and isinstance(data.spec.x, Preference)

    def measure(self, context: EvaluationContext) -> Scores:
        """Both means over the split."""
        model: Any = context.model
        rewards = torch.cat([model.answer_rewards(batch).double().cpu() for batch in context.batches(32)])  # (N, 2)
        apart = rewards[:, 0] - rewards[:, 1]
        right, nats = (apart.sign() + 1) / 2, -F.logsigmoid(apart)
        return {
            context.name("preferred"): Metric(float(right.mean()), "higher", error=standard_error(right)),
            context.name("preference_nll"): Metric(float(nats.mean()), "lower", error=standard_error(nats)),
        }
