"""Base class of classical models of time series: normal steps given the past."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spaces import Series
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import Fitted
from zoo.nn.distributions.likelihoods import LikelihoodKind
from zoo.nn.samplers.noise import normal

ROWS = 65_536  # most continuations that are drawn at once


class NormalSteps(ExactLikelihood, Fitted):
    """A series whose next step is normal given all steps before it; a subclass writes `fit` and `next_step`.

    Covariates, whose future is known, are given to `next_step` if the class has `reads_covariates`; others ignore them.
    """

    accepts = (Series,)
    likelihood_kind: LikelihoodKind = "continuous"
    reads_covariates: ClassVar[bool] = False

    @property
    def n_covariates(self) -> int:
        """Covariates of a step that the model reads."""
        known = self.spec.condition
        return len(known.columns) if self.reads_covariates and isinstance(known, Series) else 0

    def next_step(self, past: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and Cholesky factor of the covariance (D, D) of the step after the past (B, t, D).

        Args:
            past: all steps before.
            given: covariates of the step (B, C); None if the model does not read any, or for their means.
        """
        raise NotImplementedError

    def given_covariates(self, condition: Tensor | None, n: int, steps: int) -> Tensor | None:
        """Covariates (n, steps, C) float64 on the model's device; None if the model does not read any.

        Raises:
            DataError: another shape.
        """
        if condition is None or not self.n_covariates:
            return None
        if tuple(condition.shape) != (n, steps, self.n_covariates):
            want = f"({n}, {steps}, {self.n_covariates})"
            raise DataError(f"condition={tuple(condition.shape)}: the model reads covariates {want}. Correct them.")
        return condition.to(self.device).double()

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-density of windows (B, T, D), nats (B,), given covariates y (B, T, C) if the model reads them."""
        with torch.autocast(x.device.type, enabled=False):
            known = self.given_covariates(y, len(x), x.shape[1])
            x, nats = x.double(), x.new_zeros(len(x), dtype=torch.float64)
            for t in range(x.shape[1]):
                mean, factor = self.next_step(x[:, :t], None if known is None else known[:, t])
                white = torch.linalg.solve_triangular(factor, (x[:, t] - mean).T, upper=False)  # (D, B)
                nats = nats - 0.5 * (white.square().sum(0) + x.shape[2] * math.log(2 * math.pi))
                nats = nats - factor.diagonal().log().sum()
            return nats.float()

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
            history: the past.
            horizon: steps to add.
            n: joint samples of the future of each series.
            condition: covariates of past and future (B, H + horizon, C), if the model reads them; None is their means.
            generator: source of randomness.

        Raises:
            DataError: covariates of another shape.
        """
        past = history.to(self.device).double()
        known = self.given_covariates(condition, len(past), past.shape[1] + horizon)
        noise = normal(len(past) * n, horizon, past.shape[2], generator=generator).to(past)
        size = max(ROWS // n, 1)
        parts = zip(past.split(size), noise.split(size * n), strict=True) if len(past) else ()
        found = [
            self.continued(some, e, None if known is None else known[number * size : (number + 1) * size])
            for number, (some, e) in enumerate(parts)
        ]
        return torch.cat(found).unflatten(0, (-1, n)).float()

    def continued(self, past: Tensor, noise: Tensor, known: Tensor | None = None) -> Tensor:
        """Futures (B n, horizon, D) after the past (B, H, D), from normal numbers (B n, horizon, D).

        Covariates `known` (B, H + horizon, C) are those of all steps.
        """
        n = len(noise) // len(past)
        x = past.repeat_interleave(n, 0)
        for e in noise.unbind(1):
            given = None if known is None else known[:, x.shape[1]].repeat_interleave(n, 0)
            mean, factor = self.next_step(x, given)
            x = torch.cat([x, (mean + e @ factor.T)[:, None]], 1)
        return x[:, past.shape[1] :]

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Windows (n, T, D) from their beginning, given covariates (n, T, C) if the model reads them."""
        past = torch.zeros(n, 0, self.spec.shape[1])
        return self.forecast(past, self.spec.shape[0], 1, condition=condition, generator=generator)[:, 0]
