"""Autoregressive recurrent network of time series, with probabilistic forecasts."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import DropoutRate, PositiveInt
from zoo.core.spaces import Series
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.base import Model
from zoo.nn.blocks.lstm import LSTM
from zoo.nn.distributions.emissions import EMISSIONS, EmissionName
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.noise import fork

ROWS = 16_384  # most continuations that are drawn at once


@register("model", "deepar")
class DeepAR(ExactLikelihood, Model):
    """DeepAR: a recurrent network predicts the distribution of the next step of a series from all before it.

    Columns are independent given the past. With scaling=mean, a value is divided by the mean absolute value of the
    steps before it, and the prediction is multiplied by that. The original uses the mean of the whole history, which a
    density of the history must not contain. So `log_prob` is an exact, normalised density of a window. A missing
    value is not scored, and the network reads that it is missing. The loss is in nats per window.

    Args:
        spec: of the series; its condition may be covariates, whose future is known.
        cell: recurrent cells.
        d_model: units of a layer.
        n_layers: layers of cells.
        dropout: between layers.
        emission: distribution of a step; "negative_binomial" is for counts.
        scaling: "mean" for series of different or growing size, "none" for one size.
        optimizer: with its learning rate and schedule.
    """

    accepts = (Series,)
    paper = "Salinas, Flunkert, Gasthaus & Januschowski 2017 (arXiv:1704.04110)"
    reads_missing = True  # see `zoo.data.series.windows`
    location: Tensor  # (D,) of the training data
    scale: Tensor  # (D,)
    covariate_location: Tensor  # (C,)
    covariate_scale: Tensor  # (C,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        cell: Literal["lstm", "gru"] = "lstm",
        d_model: PositiveInt = 40,
        n_layers: PositiveInt = 2,
        dropout: DropoutRate = 0.0,
        emission: EmissionName = "gaussian",
        scaling: Literal["none", "mean"] = "none",
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        assert isinstance(spec.x, Series)
        self.emission, self.n_columns = EMISSIONS[emission](), len(spec.x.columns)
        self.likelihood_kind, self.scaled = self.emission.kind, scaling == "mean"
        self.n_covariates = spec.condition.shape[1] if isinstance(spec.condition, Series) else 0
        network = LSTM if cell == "lstm" else nn.GRU
        inputs = 3 * self.n_columns + self.n_covariates
        self.cells = network(inputs, d_model, n_layers, batch_first=True, dropout=dropout if n_layers > 1 else 0.0)
        self.head = nn.Linear(d_model, self.n_columns * self.emission.n_params)
        self.lacks("export")  # torch.export fixes the length of the network's inputs
        for name, size in (("", self.n_columns), ("covariate_", self.n_covariates)):
            self.register_buffer(f"{name}location", torch.zeros(size))
            self.register_buffer(f"{name}scale", torch.ones(size))

    def fit_to_data(self, data: DataModule) -> None:
        """Set locations and scales from the training windows; counts keep their zero.

        Raises:
            DataError: an emission of counts, and data that are not.
        """
        super().fit_to_data(data)
        x, y = data.train
        rows = x.double().flatten(0, 1)  # (N, D)
        if self.emission.counts:
            if bool(((rows < 0) | (rows != rows.round())).logical_and(~rows.isnan()).any()):
                raise DataError(
                    f"model.emission={self.hparams['emission']}: {self.spec} is not counts, whole numbers from 0. "
                    f"Set model.emission=gaussian or student_t."
                )
        else:
            self.location.copy_(rows.nanmean(0))
        self.scale.copy_(positive((rows - self.location.cpu()).abs().nanmean(0)))
        if self.n_covariates:
            known = y.double().flatten(0, 1)
            self.covariate_location.copy_(known.mean(0))
            self.covariate_scale.copy_(positive((known - known.mean(0)).abs().mean(0)))

    # -- likelihood --------------------------------------------------------------------------------------------------

    def inputs(self, x: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs of the network before each step and the next one, and the units of the steps (B, T + 1, D).

        Args:
            x: values (B, T, D), NaN where missing.
            given: covariates of these steps and the next one (B, T + 1, C), if the model has them.
        """
        seen = F.pad((~x.isnan()).to(self.scale.dtype), (0, 0, 1, 0))  # (B, T + 1, D), the step before
        z = F.pad(((x - self.location) / self.scale).nan_to_num(0.0), (0, 0, 1, 0))
        size = self.sizes(z.abs().cumsum(1), seen.cumsum(1))
        return self.features(z, seen, size, given), size * self.scale

    def sizes(self, total: Tensor, count: Tensor) -> Tensor:
        """Sums of absolute values, and how many, (..., D) -> divisors of the values (..., D); 1 without scaling."""
        return ((1 + total) / (1 + count)).clamp(min=1e-4) if self.scaled else torch.ones_like(total)

    def features(self, z: Tensor, seen: Tensor, size: Tensor, given: Tensor | None) -> Tensor:
        """Standardised values, their presence and divisors (B, T, D), covariates (B, T, C) -> inputs (B, T, F)."""
        parts = [z / size, seen, size.log()]
        if self.n_covariates:
            shape = (*z.shape[:2], self.n_covariates)
            known = z.new_zeros(shape) if given is None else (given - self.covariate_location) / self.covariate_scale
            parts.append(known.to(z.dtype))
        return torch.cat(parts, -1)

    def params(self, h: Tensor) -> Tensor:
        """Outputs (B, T, d_model) of the cells -> parameters (B, T, D, n_params) in single precision."""
        return self.head(h).unflatten(-1, (self.n_columns, -1)).to(torch.promote_types(h.dtype, torch.float32))

    def step_log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-likelihood of each value of windows (B, T, D), nats (B, T, D); 0 where it is missing."""
        given = y if self.n_covariates else None
        inputs, unit = self.inputs(x[:, :-1], given)
        h, _ = self.cells(inputs)
        value = (x if self.emission.counts else x - self.location).nan_to_num(0.0)
        return self.emission.log_prob(self.params(h), unit, value).masked_fill(x.isnan(), 0.0)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood of windows (B, T, D) with covariates y (B, T, C), nats (B,).

        Without y, covariates are at their means.
        """
        return self.step_log_prob(x, y).sum((1, 2))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood, nats per window."""
        return {"loss": -self.log_prob(batch.x, batch.y).mean()}

    # -- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def forecast(
        self,
        history: Tensor,
        horizon: int,
        n: int = 100,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n continuations of each history (B, H, D), (B, n, horizon, D).

        Args:
            history: the past; NaN where a value is missing.
            horizon: steps to add.
            n: joint samples of the future of each series.
            condition: covariates (B, H + horizon, C), if the model has them; None is their means.
            generator: source of randomness.

        Raises:
            DataError: covariates that the model does not have, or of another shape.
        """
        past = history.to(self.scale)
        given = self.check_covariates(condition, len(past), past.shape[1] + horizon)
        noise = torch.rand(len(past), n, horizon, self.n_columns, 2, generator=fork(generator, "values"))
        torch.rand(1, generator=generator)  # the next call draws other numbers
        training = self.training
        self.eval()
        size = max(ROWS // n, 1)
        parts = []
        for start in range(0, len(past), size):
            rows = slice(start, start + size)
            parts.append(
                self.continued(past[rows], noise[rows].to(self.device), None if given is None else given[rows])
            )
        self.train(training)
        return torch.cat(parts)

    def continued(self, past: Tensor, noise: Tensor, given: Tensor | None) -> Tensor:
        """Futures (B, n, horizon, D) after the past (B, H, D) from uniform numbers (B, n, horizon, D, 2)."""
        n, steps = noise.shape[1], past.shape[1]
        inputs, unit = self.inputs(past, None if given is None else given[:, : steps + 1])
        h, state = self.cells(inputs)
        repeat = lambda s: s.repeat_interleave(n, 1)  # noqa: E731  # (layers, B, d_model) -> (layers, B n, d_model)
        state = tuple(map(repeat, state)) if isinstance(state, tuple) else repeat(state)
        seen = (~past.isnan()).to(self.scale.dtype)
        z = ((past - self.location) / self.scale).nan_to_num(0.0)
        h, unit, total, count = (
            part.repeat_interleave(n, 0) for part in (h[:, -1:], unit[:, -1:], z.abs().sum(1), seen.sum(1))
        )
        found: list[Tensor] = []
        for number, u in enumerate(noise.flatten(0, 1).unbind(1), steps):
            if found:
                z = (found[-1] - self.location) / self.scale  # (B n, D)
                total, count = total + z.abs(), count + 1
                size = self.sizes(total, count)[:, None]
                known = None if given is None else given[:, number : number + 1].repeat_interleave(n, 0)
                h, state = self.cells(self.features(z[:, None], torch.ones_like(size), size, known), state)
                unit = size * self.scale
            value = self.emission.from_uniform(self.params(h)[:, 0], unit[:, 0], u)  # (B n, D)
            found.append(value if self.emission.counts else value + self.location)
        return torch.stack(found, 1).unflatten(0, (-1, n))

    def check_covariates(self, condition: Tensor | None, n: int, steps: int) -> Tensor | None:
        """Covariates (n, steps, C) on the model's device.

        Raises:
            DataError: the model does not have covariates, or another shape.
        """
        if condition is None:
            return None
        if not self.n_covariates or condition.shape != (n, steps, self.n_covariates):
            want = f"({n}, {steps}, {self.n_covariates})" if self.n_covariates else "none"
            raise DataError(f"condition={tuple(condition.shape)}: the model reads covariates {want}. Correct them.")
        return condition.to(self.scale)

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Windows (n, T, D) from their beginning.

        Args:
            n: number of windows.
            condition: covariates (n, T, C), if the model has them; None is their means.
            generator: source of randomness.
        """
        rows = torch.zeros(n, 0, self.n_columns)
        return self.forecast(rows, self.spec.shape[0], 1, condition=condition, generator=generator)[:, 0]


def positive(scale: Tensor) -> Tensor:
    """Scales, 1 where a column is constant."""
    return torch.where(scale > 0, scale, 1.0)
