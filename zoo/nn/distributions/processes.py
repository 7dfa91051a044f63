"""Time series of known law: exact likelihoods, and exact forecasts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from zoo.nn.samplers.noise import normal

LOG_2PI = math.log(2 * math.pi)


class Process(Protocol):
    """A law of univariate series."""

    def sample(self, n: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """n series from their beginning, float64 (n, T)."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of series (B, T) from their beginning, nats (B,)."""

    def forecast(self, history: Tensor, horizon: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n continuations of each history (B, H), of the exact law: float64 (B, n, horizon)."""


@dataclass(frozen=True)
class LinearProcess:
    """Stationary autoregression x_t = sum_k coefficients_k x_{t-k} + sigma e_t with normal e_t.

    Series begin in the stationary law, so that every window has the same normal distribution (Brockwell & Davis 1991,
    Time Series: Theory and Methods, section 3.3).

    Args:
        coefficients: of the last p values, the newest first.
        sigma: standard deviation of the innovations.

    Raises:
        ValueError: the process is not stationary.
    """

    coefficients: tuple[float, ...]
    sigma: float = 1.0

    def __post_init__(self) -> None:
        companion = torch.eye(len(self.coefficients), dtype=torch.float64).roll(1, 0)
        companion[0] = torch.tensor(self.coefficients, dtype=torch.float64)
        if float(torch.linalg.eigvals(companion).abs().max()) >= 1:
            raise ValueError(f"coefficients={self.coefficients}: the process is not stationary.")

    @cached_property
    def start(self) -> Tensor:
        """Autocovariances of lags 0 to p, (p + 1,), from the Yule-Walker equations."""
        phi = torch.tensor(self.coefficients, dtype=torch.float64)
        p = len(phi)
        system = torch.eye(p + 1, dtype=torch.float64)  # gamma_k - sum_j phi_j gamma_|k-j| = sigma^2 [k = 0]
        for k in range(p + 1):
            for j in range(1, p + 1):
                system[k, abs(k - j)] -= phi[j - 1]
        right = torch.zeros(p + 1, dtype=torch.float64)
        right[0] = self.sigma**2
        return torch.linalg.solve(system, right)

    def autocovariance(self, length: int) -> Tensor:
        """Autocovariances of lags 0 to length - 1, (length,)."""
        found = self.start.tolist()
        while len(found) < length:
            found.append(sum(c * found[-1 - k] for k, c in enumerate(self.coefficients)))
        return torch.tensor(found[:length], dtype=torch.float64)

    def covariance(self, length: int) -> Tensor:
        """Covariance of a window, (length, length)."""
        place = torch.arange(length)
        return self.autocovariance(length)[(place[:, None] - place).abs()]

    def sample(self, n: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """n stationary windows (n, T)."""
        return normal(n, length, generator=generator).double() @ torch.linalg.cholesky(self.covariance(length)).T

    def log_prob(self, x: Tensor) -> Tensor:
        """Normal log-density of windows (B, T), nats (B,)."""
        factor = torch.linalg.cholesky(self.covariance(x.shape[1]))
        white = torch.linalg.solve_triangular(factor, x.double().T, upper=False)  # (T, B)
        return -0.5 * (white.square().sum(0) + x.shape[1] * LOG_2PI) - factor.diagonal().log().sum()

    def conditional(self, history: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Mean (B, horizon) and Cholesky factor (horizon, horizon) of the future given a history (B, H)."""
        past = history.shape[1]
        whole = self.covariance(past + horizon)
        weight = torch.linalg.solve(whole[:past, :past], whole[:past, past:])  # (H, horizon)
        rest = whole[past:, past:] - whole[past:, :past] @ weight
        return history.double() @ weight, torch.linalg.cholesky(rest)

    def quantiles(self, history: Tensor, horizon: int, levels: Sequence[float]) -> Tensor:
        """Quantiles of each future value given a history (B, H): (B, horizon, levels)."""
        mean, factor = self.conditional(history, horizon)
        scores = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64))
        return mean[..., None] + factor.square().sum(1).sqrt()[:, None] * scores

    def forecast(self, history: Tensor, horizon: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n joint continuations of each history (B, H): (B, n, horizon)."""
        mean, factor = self.conditional(history, horizon)
        noise = normal(len(history) * n, horizon, generator=generator).double().unflatten(0, (-1, n))
        return mean[:, None] + noise @ factor.T


@dataclass(frozen=True)
class Garch:
    """GARCH(1, 1): x_t = s_t e_t with s_t^2 = omega + alpha x_{t-1}^2 + beta s_{t-1}^2 (Bollerslev 1986).

    A series begins with the stationary variance omega / (1 - alpha - beta).

    Args:
        omega: constant of the variance.
        alpha: weight of the last square.
        beta: weight of the last variance.

    Raises:
        ValueError: the variance is not stationary.
    """

    omega: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        if not (self.omega > 0 and self.alpha >= 0 and self.beta >= 0 and self.alpha + self.beta < 1):
            raise ValueError(f"alpha={self.alpha}, beta={self.beta}: the variance is not stationary.")

    @property
    def stationary(self) -> float:
        """Stationary variance."""
        return self.omega / (1 - self.alpha - self.beta)

    def variances(self, x: Tensor) -> Tensor:
        """Variances (B, T + 1) of each value and of the next one, given series (B, T)."""
        found = [torch.full((len(x),), self.stationary, dtype=torch.float64)]
        for value in x.double().unbind(1):
            found.append(self.omega + self.alpha * value.square() + self.beta * found[-1])
        return torch.stack(found, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of series (B, T) from their beginning, nats (B,)."""
        variance = self.variances(x)[:, :-1]
        return -0.5 * (x.double().square() / variance + variance.log() + LOG_2PI).sum(1)

    def sample(self, n: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """n series (n, T)."""
        return self.forecast(torch.zeros(1, 0), length, n, generator)[0]

    def forecast(self, history: Tensor, horizon: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n continuations of each history (B, H), step by step: (B, n, horizon)."""
        variance = self.variances(history)[:, -1:].expand(-1, n)
        noise = normal(len(history) * n, horizon, generator=generator).double().unflatten(0, (-1, n))
        found = []
        for e in noise.unbind(2):
            found.append(variance.sqrt() * e)
            variance = self.omega + self.alpha * found[-1].square() + self.beta * variance
        return torch.stack(found, 2)


def seasonal(short: float, season: float, period: int, sigma: float = 1.0) -> LinearProcess:
    """Seasonal autoregression (1 - short B)(1 - season B^period) x = sigma e, for the lag operator B."""
    coefficients = [0.0] * (period + 1)
    coefficients[0] += short
    coefficients[period - 1] += season
    coefficients[period] -= short * season
    return LinearProcess(tuple(coefficients), sigma)
