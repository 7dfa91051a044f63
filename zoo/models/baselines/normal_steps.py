"""Base class of classical models of time series: normal steps given the past."""

import math

import torch
from torch import Tensor

from zoo.core.spaces import Series
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import Fitted
from zoo.nn.distributions.likelihoods import LikelihoodKind
from zoo.nn.samplers.noise import normal

ROWS = 65_536  # most continuations that are drawn at once


class NormalSteps(ExactLikelihood, Fitted):
    """A series whose next step is normal given all steps before it; a subclass writes `fit` and `next_step`."""

    accepts = (Series,)
    likelihood_kind: LikelihoodKind = "continuous"

    def next_step(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and Cholesky factor of the covariance (D, D) of the step after the past (B, t, D)."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-density of windows (B, T, D), nats (B,)."""
        with torch.autocast(x.device.type, enabled=False):
            x, nats = x.double(), x.new_zeros(len(x), dtype=torch.float64)
            for t in range(x.shape[1]):
                mean, factor = self.next_step(x[:, :t])
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
            condition: covariates, which the model ignores.
            generator: source of randomness.
        """
        past = history.to(self.device).double()
        noise = normal(len(past) * n, horizon, past.shape[2], generator=generator).to(past)
        size = max(ROWS // n, 1)
        parts = zip(past.split(size), noise.split(size * n), strict=True) if len(past) else ()
        return torch.cat([self.continued(some, e) for some, e in parts]).unflatten(0, (-1, n)).float()

    def continued(self, past: Tensor, noise: Tensor) -> Tensor:
        """Futures (B n, horizon, D) after the past (B, H, D), from normal numbers (B n, horizon, D)."""
        x = past.repeat_interleave(len(noise) // len(past), 0)
        for e in noise.unbind(1):
            mean, factor = self.next_step(x)
            x = torch.cat([x, (mean + e @ factor.T)[:, None]], 1)
        return x[:, past.shape[1] :]

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Windows (n, T, D) from their beginning; covariates are ignored."""
        past = torch.zeros(n, 0, self.spec.shape[1])
        return self.forecast(past, self.spec.shape[0], 1, generator=generator)[:, 0]
