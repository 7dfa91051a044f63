"""Seasonal naive forecasts."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spec import DataSpec
from zoo.models.baselines.normal_steps import NormalSteps


@register("model", "seasonal_naive")
class SeasonalNaive(NormalSteps):
    """Seasonal random walk: a value is that of one period before, plus normal noise; the floor of forecasts.

    Columns are independent. The first period of a window is normal with the mean and variance of the training data.
    With period=1, forecasts repeat the last value. Before fitting, the mean is 0 and variances are 1.

    Args:
        spec: of the series.
        period: steps of a season; at most one less than those of a window.
    """

    paper = "Hyndman & Athanasopoulos 2021 (Forecasting: Principles and Practice, sections 5.2 and 5.5)"
    mean: Tensor  # (D,) float64
    std: Tensor  # (2, D) float64, of values, and of their differences from one period before

    def __init__(self, spec: DataSpec, *, period: PositiveInt = 12) -> None:
        super().__init__(spec)
        length, d = spec.shape
        self.period = min(period, length - 1)
        self.register_buffer("mean", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("std", torch.ones(2, d, dtype=torch.float64))

    def fit(self, data: Tensor) -> None:
        """Mean and variances of windows (N, T, D)."""
        x = data.double()
        rows = x.flatten(0, 1)
        steps = (x[:, self.period :] - x[:, : -self.period]).flatten(0, 1)
        self.mean.copy_(rows.mean(0))
        spread = torch.stack([rows.std(0, correction=0), steps.square().mean(0).sqrt()])
        self.std.copy_(spread.clamp(min=1e-6))

    def next_step(self, past: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The value of one period before, or the mean."""
        if past.shape[1] < self.period:
            return self.mean.expand(len(past), -1), torch.diag(self.std[0])
        return past[:, -self.period], torch.diag(self.std[1])
