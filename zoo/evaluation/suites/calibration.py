"""Calibration of next-token probabilities."""

from typing import Any

import torch

from zoo.core.registry import register
from zoo.core.spaces import Preference
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import context_policy
from zoo.metrics.calibration import BINS, expected_calibration_error
from zoo.models.abilities import SupportsTokenConfidence
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "calibration")
class CalibrationSuite(Suite):
    """Expected calibration error of the most likely next token, over bins of equal width."""

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models of text with probabilities of all tokens."""
        known = supports(model, SupportsTokenConfidence)
        return known and model.spec.text and not isinstance(model.spec.x, Preference)

    def measure(self, context: EvaluationContext) -> Scores:
        """The error over the whole split, and the mean confidence beside the accuracy."""
        model: Any = context.model
        parts = [[t.cpu() for t in model.token_confidence(batch)] for batch in context.batches(32)]
        confidence, right = (torch.cat(some) for some in zip(*parts, strict=True))  # (N,) each
        place = context_policy(context)
        return {
            f"ece{BINS}@{place}": Metric(expected_calibration_error(confidence, right), "lower"),
            f"confidence@{place}": Metric(
                float(confidence.double().mean()), "reference", float(right.double().mean()), note="of accuracy"
            ),
        }
