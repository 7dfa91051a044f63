"""Forecasts of held-out windows, and scores of generated ones."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Series
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.forecasts import covered, crps_of_samples, mean_pinball
from zoo.metrics.series import discriminative_score, predictive_score
from zoo.models.abilities import SupportsForecasting, SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model

PATHS = 100  # samples of each future
MAX_WINDOWS = 1_000
ROWS = 250  # windows at once
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]  # of quantiles
SHARES = {"coverage50": 0.5, "coverage80": 0.8}  # of central intervals


@register("suite", "forecasts")
class ForecastSuite(Suite):
    """CRPS, quantile loss and coverage of the last steps of held-out windows, given the steps before.

    `crps_last_value` is that of the floor, which repeats the last value. For data of known law, the reference is the
    forecast of the law. Columns are divided by the mean absolute value of the split.
    """

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that forecast series."""
        return supports(model, SupportsForecasting) and isinstance(data.spec.x, Series)

    def measure(self, context: EvaluationContext) -> Scores:
        """Means over windows, steps and columns; missing values are left out."""
        model: Any = context.model
        law: Any = getattr(context.data, "forecast", None)
        space = context.data.spec.x
        assert isinstance(space, Series)
        x, y = (part[:MAX_WINDOWS] for part in context.held_out)
        past, future = x[:, : space.history], x[:, space.history :]
        scale = future.abs().nanmean((0, 1)).clamp(min=1e-12)  # (D,)
        known = y if isinstance(context.data.spec.condition, Series) else None
        found: dict[str, list[Tensor]] = {}
        ideal: dict[str, list[Tensor]] = {}
        for number, rows in enumerate(torch.arange(len(x)).split(ROWS)):
            given = None if known is None else known[rows].to(model.device)
            chance = make_generator(context.protocol.seed, 9, number)
            paths = model.forecast(
                past[rows].to(model.device), space.horizon, PATHS, condition=given, generator=chance
            ).cpu()
            score(found, paths / scale, future[rows] / scale)
            if law is not None:
                chance = make_generator(context.protocol.seed, 10, number)
                score(ideal, law(past[rows], space.horizon, PATHS, chance) / scale, future[rows] / scale)
        last = last_values(past)
        found["crps_last_value"] = [window_means((future - last[:, None]).abs() / scale)]
        scores: Scores = {}
        for name, parts in found.items():
            values = torch.cat(parts).double()
            values = values[~values.isnan()]
            better = "reference" if name in SHARES else "lower"
            reference = float(torch.cat(ideal[name]).double().nanmean()) if name in ideal else SHARES.get(name)
            mean = float(values.mean()) if len(values) else float("nan")
            scores[context.name(name, len(values))] = Metric(mean, better, reference, error=standard_error(values))  # type: ignore[arg-type]
        return scores


def score(found: dict[str, list[Tensor]], paths: Tensor, future: Tensor) -> None:
    """Add the scores of paths (B, n, horizon, D) of futures (B, horizon, D), each (B,)."""
    samples = paths.permute(0, 2, 3, 1).double()  # (B, horizon, D, n)
    y = future.double()
    values = {"crps": crps_of_samples(samples, y), "quantile_loss": mean_pinball(samples, y, LEVELS)}
    values["absolute_error"] = (samples.median(-1).values - y).abs()
    for name, share in SHARES.items():
        values[name] = covered(samples, y, share).double().masked_fill(y.isnan(), torch.nan)
    for name, each in values.items():
        found.setdefault(name, []).append(window_means(each))


def window_means(values: Tensor) -> Tensor:
    """Means (B,) over steps and columns of (B, horizon, D), without missing values; NaN where all are missing."""
    return values.flatten(1).nanmean(1)


def last_values(past: Tensor) -> Tensor:
    """The last value of each column that is not missing, (B, H, D) -> (B, D)."""
    place = torch.where(~past.isnan(), torch.arange(past.shape[1])[:, None], -1).amax(1)
    return past.gather(1, place.clamp(min=0)[:, None])[:, 0]


@register("suite", "series")
class SeriesSuite(Suite):
    """Generated windows: a classifier against held-out ones, and a predictor that is trained on them."""

    order = 45
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that sample series without covariates, of data without missing values."""
        space = data.spec.x
        able = supports(model, SupportsSampling) and isinstance(space, Series) and data.spec.condition is None
        return able and not getattr(space, "missing", False)

    def measure(self, context: EvaluationContext) -> Scores:
        """Both scores; the references are those of training windows."""
        held, drawn, other = context.held_out[0], context.drawn[0], context.training
        seed, scores = context.protocol.seed, dict[str, Metric]()
        n = min(len(held), len(drawn))
        scores[context.name("discriminative", n)] = Metric(
            discriminative_score(held, drawn, seed), "lower", discriminative_score(held, other, seed)
        )
        scores[context.name("predictive_error", n)] = Metric(
            predictive_score(drawn, held, seed), "lower", predictive_score(other, held, seed)
        )
        return scores
