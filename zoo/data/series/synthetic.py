"""Synthetic time series of known law, so that likelihoods and forecasts have an exact reference."""

from typing import Literal

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Series
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import make_generator
from zoo.data.series.windows import OneSeries
from zoo.nn.distributions.processes import Garch, LinearProcess, Process, seasonal

LAWS: dict[str, Process] = {
    "ar": LinearProcess((1.2, -0.5), 0.6),
    "seasonal": seasonal(0.5, 0.8, 12, 0.45),
    "garch": Garch(0.1, 0.3, 0.6),
}
LENGTH, HORIZON = 48, 12
ENDS = 4  # windows that `zoo forecast` continues
SIZES = {"train": 4_000, "val": 1_000, "test": 1_000}


@register("data", "synthetic_series")
class SyntheticSeries(DataModule):
    """Synthetic series of a known law, AR(2), seasonal AR or GARCH(1, 1): 4,000 training and 1,000 test windows.

    Windows of 48 steps are independent, each from the beginning of a stationary series. Standard deviations are near 1.
    The horizon is 12 steps. `log_prob` and `forecast` are exact. With the lag operator B, the laws are:

    - ar: x_t = 1.2 x_{t-1} - 0.5 x_{t-2} + 0.6 e_t.
    - seasonal: (1 - 0.5 B)(1 - 0.8 B^12) x_t = 0.45 e_t.
    - garch: normal values with the variance s_t^2 = 0.1 + 0.3 x_{t-1}^2 + 0.6 s_{t-1}^2.

    Args:
        process: the law.
        batch_size: windows per batch.
        seed: seed of the training order; the windows do not depend on it.
    """

    licence = "generated"

    def __init__(
        self,
        *,
        process: Literal["ar", "seasonal", "garch"] = "seasonal",
        batch_size: PositiveInt = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.law, self.variant = LAWS[process], "" if process == "seasonal" else process

    @property
    def spec(self) -> DataSpec:
        """Windows of one column."""
        return DataSpec(Series(LENGTH, ("x",), HORIZON), name="synthetic_series")

    def load(self) -> None:
        """Draw the three splits."""
        splits: list[Split] = []
        for number, size in enumerate(SIZES.values()):
            x = self.law.sample(size, LENGTH, make_generator(number)).float()[..., None]
            splits.append((x, torch.zeros(size, dtype=torch.int64)))
        self.train, self.val, self.test = splits

    time_name, id_name = "step", "window"  # headings of forecasts

    def ends(self) -> list[OneSeries]:
        """The first test windows, which forecasts continue."""
        steps = [str(i) for i in range(LENGTH)]
        later = lambda count: [str(LENGTH + i) for i in range(count)]  # noqa: E731
        none = torch.zeros(LENGTH, 0)
        return [OneSeries(str(i), steps, x, none, later) for i, x in enumerate(self.test[0][:ENDS])]

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of windows (B, T, 1), nats (B,)."""
        return self.law.log_prob(x[..., 0])

    def forecast(self, history: Tensor, horizon: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n continuations of each history (B, H, 1) of the exact law, (B, n, horizon, 1)."""
        return self.law.forecast(history[..., 0], horizon, n, generator).float()[..., None]
