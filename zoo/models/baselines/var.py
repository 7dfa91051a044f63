"""Vector autoregression."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.baselines.normal_steps import NormalSteps

RIDGE = 1e-8  # of the variance, so that constant columns have a density


@register("model", "var")
class VectorAutoregression(NormalSteps):
    """Vector autoregression: each step is a linear function of the last ones plus normal noise, by least squares.

    Of one column it is AR(p). The first steps of a window have fewer before them. Step t has the regression of order t,
    fitted to all steps with at least t before them. So `log_prob` is a normalised density of a window. Before fitting,
    all values are standard normal.

    Where the data have covariates, a step is also a linear function of those of the same step (VARX). So forecasts read
    covariates of the future.

    Args:
        spec: of the series.
        order: steps that a step depends on; at most one less than those of a window.
    """

    reads_covariates = True
    paper = "Sims 1980 (Econometrica 48); Lütkepohl 2005 (New Introduction to Multiple Time Series Analysis)"
    weight: Tensor  # (order + 1, 1 + C + order * D, D) float64 of each order: constant, covariates, lags, newest first
    factor: Tensor  # (order + 1, D, D) float64, Cholesky factors of the covariances of the noise
    usual: Tensor  # (C,) float64, means of the covariates

    def __init__(self, spec: DataSpec, *, order: PositiveInt = 13) -> None:
        super().__init__(spec)
        (length, d), one = spec.shape, torch.eye(spec.shape[1], dtype=torch.float64)
        self.order = min(order, length - 1)
        size = 1 + self.n_covariates + self.order * d
        self.register_buffer("weight", torch.zeros(self.order + 1, size, d, dtype=torch.float64))
        self.register_buffer("usual", torch.zeros(self.n_covariates, dtype=torch.float64))
        self.register_buffer("factor", one.repeat(self.order + 1, 1, 1))

    def regressors(self, past: Tensor, order: int, given: Tensor | None = None) -> Tensor:
        """One, covariates (B, C), and the last steps from the newest, of the past (B, t, D): (B, 1 + C + order * D)."""
        newest = past[:, past.shape[1] - order :].flip(1).flatten(1)
        known = self.usual.to(newest).expand(len(newest), -1) if given is None else given
        return torch.cat([newest.new_ones(len(newest), 1), known, newest], 1)

    def statistics(self, batch: Batch) -> Tensor:
        """Windows with the covariates of each step, (B, T, D + C)."""
        return torch.cat([batch.x, batch.y], 2) if self.n_covariates else batch.x

    def fit(self, data: Tensor) -> None:
        """Least squares of each order, from the moments of windows with covariates (N, T, D + C)."""
        x, known = data.double().split([self.spec.shape[1], self.n_covariates], 2)
        self.usual.copy_(known.mean((0, 1)))
        for order in range(self.order + 1):
            size = 1 + self.n_covariates + order * x.shape[2]
            d, count = x.shape[2], 0
            moment, cross, square = (x.new_zeros(*shape) for shape in ((size, size), (size, d), (d, d)))
            for t in range(order, x.shape[1]):
                rows, target = self.regressors(x[:, :t], order, known[:, t]), x[:, t]
                moment, cross = moment + rows.T @ rows, cross + rows.T @ target
                square, count = square + target.T @ target, count + len(rows)
            scale = moment.diagonal().sqrt().clamp(min=1e-12)  # for the condition of the normal equations
            weight = torch.linalg.lstsq(moment / scale / scale[:, None], cross / scale[:, None]).solution
            weight = weight / scale[:, None]
            noise = (square - weight.T @ cross) / count
            noise = noise + torch.diag(RIDGE * square.diagonal() / count + 1e-12)
            self.weight[order] = 0.0
            self.weight[order, :size] = weight.to(self.weight)
            self.factor[order] = torch.linalg.cholesky(noise).to(self.factor)

    def next_step(self, past: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (B, D) of the regression of the possible order, and the factor of its noise."""
        order = min(past.shape[1], self.order)
        rows = self.regressors(past, order, given)
        return rows @ self.weight[order, : rows.shape[1]], self.factor[order]
