"""Gaussian copula of rows of mixed columns."""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.table.cells import given_rows
from zoo.data.table.constraints import constrained
from zoo.models.baselines.base import Fitted
from zoo.models.results import Likelihood
from zoo.nn.blocks.table_codec import TableCodec
from zoo.nn.distributions.likelihoods import LikelihoodKind
from zoo.nn.losses.importance_weighted import log_mean_exp
from zoo.nn.samplers.noise import fork, normal

MIN_SHARE = 1e-12  # of an interval
START = 4  # sweeps before correlations are averaged
Intervals = tuple[Tensor, Tensor]  # lower and upper normal scores of each block, (N, D); equal for a known score


@register("model", "gaussian_copula")
class GaussianCopula(Fitted):
    """Gaussian copula: columns with their own distributions, joined by the correlations of normal scores.

    The score of a real number is known. A category, a missing value and a number on a grid are an interval of scores
    that has their share of the training data. Correlations are estimated by Gibbs sampling of the scores in their
    intervals, because scores at random within an interval would be correlated too little. Before fitting, the columns
    are independent, and choices are equally likely.

    The loss is a bound on the likelihood by sequential importance sampling (Geweke-Hajivassiliou-Keane); it is
    exact for rows of real numbers, and tightens with k.

    Args:
        spec: of the table.
        sweeps: of Gibbs sampling over all columns.
        max_rows: most training rows.
        seed: of the sampling while fitting.
    """

    accepts = (Table,)
    paper = "Hoff 2007 (arXiv:math/0610413); Patki, Wedge & Veeramachaneni 2016 (The Synthetic Data Vault)"
    correlation: Tensor  # (D, D) of the blocks, float64
    borders: Tensor  # (D, K + 1) normal scores of the borders of each choice; infinite at and beyond the ends

    def __init__(
        self, spec: DataSpec, *, sweeps: PositiveInt = 30, max_rows: PositiveInt = 10_000, seed: int = 0
    ) -> None:
        super().__init__(spec)
        assert isinstance(spec.x, Table)
        self.fit_on, self.sweeps, self.seed = max_rows, sweeps, seed
        self.codec = TableCodec(spec.x)
        self.blocks = self.codec.blocks
        real = any(column.numeric and not column.step for column in self.codec.columns)
        self.likelihood_kind: LikelihoodKind = "continuous" if real else "discrete"
        most = max((block.size for block in self.blocks if block.choice), default=1)
        self.register_buffer("correlation", torch.eye(len(self.blocks), dtype=torch.float64))
        self.register_buffer("borders", torch.full((len(self.blocks), most + 1), torch.inf, dtype=torch.float64))
        for number, block in enumerate(self.blocks):
            if block.choice:
                self.set_shares(number, torch.ones(block.size, dtype=torch.float64) / block.size)

    # -- fitting -----------------------------------------------------------------------------------------------------

    def set_shares(self, number: int, shares: Tensor) -> None:
        """Set the borders of a choice from the share of each place (K)."""
        below = torch.cat([torch.zeros(1, dtype=torch.float64), shares.cumsum(0)[:-1]])
        self.borders[number] = torch.inf
        self.borders[number, : len(shares)] = scores(below).to(self.borders)

    def fit(self, data: Tensor) -> None:
        """Shares of the choices, then correlations from the mean of all sweeps but the first few."""
        x = data.double()
        for number, block in enumerate(self.blocks):
            if block.choice:
                counts = x[:, block.places].sum(0) + 0.5
                self.set_shares(number, counts / counts.sum())
        generator = torch.Generator().manual_seed(self.seed)
        intervals = self.intervals(x)
        u = torch.rand(x.shape[0], len(self.blocks), dtype=torch.float64, generator=generator)
        z = inside(*intervals, torch.zeros(1, dtype=torch.float64), 1.0, u)
        correlation, total = self.correlation.cpu(), torch.zeros_like(self.correlation, device="cpu")
        for sweep in range(self.sweeps + START):
            z = gibbs(z, intervals, correlation, generator)
            covariance = z.T @ z / len(z) + 1e-6 * torch.eye(z.shape[1], dtype=torch.float64)
            std = covariance.diagonal().sqrt()
            correlation = covariance / std[:, None] / std
            total += correlation * (sweep >= START)
        self.correlation.copy_(total / self.sweeps)

    # -- rows and scores ---------------------------------------------------------------------------------------------

    def intervals(self, x: Tensor, hidden: Tensor | None = None) -> Intervals:
        """Lowest and highest score of each block of rows (N, F); unbounded where missing, or `hidden` (N, D)."""
        codec, low, high = self.codec, list[Tensor](), list[Tensor]()
        x = x.double()
        scored = bool(codec.score_blocks)
        t = codec.from_scores(x[:, codec.at]) if scored else x
        t = torch.where(codec.grid, t.round(), t) if scored else t
        borders, last = self.borders, codec.last.double()
        under = codec.to_scores(t - 0.5).masked_fill(t <= 0, -torch.inf) if scored else x
        over = codec.to_scores(t + 0.5).masked_fill(t >= last, torch.inf) if scored else x
        for number, block in enumerate(self.blocks):
            if block.choice:
                chosen = x[:, block.places].argmax(1)
                low.append(borders[number][chosen])
                high.append(borders[number][chosen + 1])
                continue
            grid = codec.grid[block.scale]
            score = x[:, block.start]
            below = torch.where(grid, under[:, block.scale], score)
            above = torch.where(grid, over[:, block.scale], score)
            if block.gate >= 0:
                gone = x[:, block.gate] > 0.5
                below, above = below.masked_fill(gone, -torch.inf), above.masked_fill(gone, torch.inf)
            low.append(below)
            high.append(above)
        lower, upper = torch.stack(low, 1), torch.stack(high, 1)
        if hidden is not None:
            lower, upper = lower.masked_fill(hidden, -torch.inf), upper.masked_fill(hidden, torch.inf)
        return lower, upper

    def rows(self, z: Tensor) -> Tensor:
        """Rows (N, F) of normal scores (N, D)."""
        parts = []
        for number, block in enumerate(self.blocks):
            if block.choice:
                chosen = (z[:, number : number + 1] >= self.borders[number, 1 : block.size]).sum(1)
                parts.append(torch.nn.functional.one_hot(chosen, block.size).float())
            else:
                parts.append(z[:, number : number + 1].float())
        return self.codec.snap(torch.cat(parts, 1))

    # -- likelihood --------------------------------------------------------------------------------------------------

    def log_weights(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """Logarithms of k unbiased estimates of the probability of rows (B, F), (k, B)."""
        lower, upper = (part.repeat(k, 1) for part in self.intervals(x))
        factor = torch.linalg.cholesky(self.correlation)
        noise = torch.rand(k, *lower.shape[1:], len(x), generator=generator, dtype=torch.float64)
        u = noise.transpose(1, 2).flatten(0, 1).to(lower.device)
        standard, nats = torch.zeros_like(lower), torch.zeros_like(lower[:, 0])
        for i in range(lower.shape[1]):
            mean, std = standard[:, :i] @ factor[i, :i], factor[i, i]
            a, b = (lower[:, i] - mean) / std, (upper[:, i] - mean) / std
            known = a == b
            density = -0.5 * a.square() - 0.5 * math.log(2 * math.pi) - std.log()
            nats = nats + torch.where(known, density, log_share(a, b))
            standard[:, i] = torch.where(known, a, inside(a, b, torch.zeros_like(a), 1.0, u[:, i]))
        return nats.unflatten(0, (k, -1)) + self.log_slopes(x)

    def log_slopes(self, x: Tensor) -> Tensor:
        """Logarithm of the change of volume from real numbers to their scores, nats (B,)."""
        nats = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if not self.codec.score_blocks:
            return nats
        slopes = self.codec.slope(self.codec.from_scores(x[:, self.codec.at].double())).log()
        for block in self.codec.score_blocks:
            column = self.codec.columns[block.column]
            if not column.step:
                one = slopes[:, block.scale] - math.log(column.unit)
                nats = nats + (one * (1 - x[:, block.gate]) if block.gate >= 0 else one)
        return nats

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative bound from one sample, nats per row."""
        return {"loss": -self.log_weights(batch.x, 1)[0].float().mean()}

    @torch.no_grad()
    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """A lower bound from k samples; for real numbers alone it is exact."""
        value = log_mean_exp(self.log_weights(x, k)).float()
        return (Likelihood(value, self.likelihood_kind, exact=False, name="nelbo" if k == 1 else "nll_iw"),)

    # -- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @constrained
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        where: str = "",
    ) -> Tensor:
        """Rows (n, F).

        Args:
            n: number of rows.
            condition: none: the model is unconditional.
            generator: source of randomness.
            where: cells to keep, such as "sex=male, age=30".
        """
        self.check_condition(condition)
        if where:
            x, hidden = given_rows(self.codec, where, n)
            return self.inpaint(x.to(self.device), hidden.to(self.device), generator=generator)
        noise = normal(n, len(self.blocks), generator=generator).to(self.correlation)
        return self.rows(noise @ torch.linalg.cholesky(self.correlation).T)

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        sweeps: Count = 20,
    ) -> Tensor:
        """Rows (B, F) with new values in the columns that the mask (B or 1, F) holds, given the others.

        Args:
            x: rows.
            mask: any place of a column stands for the whole column.
            condition: none: the model is unconditional.
            generator: source of randomness.
            sweeps: of Gibbs sampling.
        """
        self.check_condition(condition)
        hidden = self.codec.masked(mask.expand_as(x))
        intervals = self.intervals(x, hidden)
        own, correlation = fork(generator, "inpaint"), self.correlation
        u = torch.rand(len(x), len(self.blocks), dtype=torch.float64, generator=own).to(x.device)
        z = inside(*intervals, torch.zeros(1, dtype=torch.float64, device=x.device), 1.0, u)
        for _ in range(max(sweeps, 1)):
            z = gibbs(z, intervals, correlation, own)
        torch.rand(1, generator=generator)  # the next call draws other numbers
        return torch.where(self.codec.spread(hidden), self.rows(z), x)


def gibbs(z: Tensor, intervals: Intervals, correlation: Tensor, generator: Any) -> Tensor:
    """One sweep over the scores (N, D): each is drawn given the others, in its interval."""
    precision = torch.linalg.inv(correlation)
    z, (lower, upper) = z.clone(), intervals
    u = torch.rand(z.shape, dtype=torch.float64, generator=generator).to(z.device)
    for i in range(z.shape[1]):
        mean = z[:, i] - z @ precision[:, i] / precision[i, i]
        z[:, i] = inside(lower[:, i], upper[:, i], mean, precision[i, i].rsqrt(), u[:, i])
    return z


def inside(lower: Tensor, upper: Tensor, mean: Tensor, std: Tensor | float, u: Tensor) -> Tensor:
    """Draw normal numbers between bounds from uniform ones, by the inverse distribution function."""
    a, b = (lower - mean) / std, (upper - mean) / std
    flip = a > 0  # the left tail has the better precision
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    low, high = torch.special.ndtr(a), torch.special.ndtr(b)
    drawn = torch.special.ndtri((low + (high - low) * u).clamp(MIN_SHARE, 1 - MIN_SHARE))
    drawn = torch.minimum(torch.maximum(drawn, a), b)
    return torch.where(lower == upper, lower, mean + std * torch.where(flip, -drawn, drawn))


def log_share(a: Tensor, b: Tensor) -> Tensor:
    """Logarithm of the probability of a standard normal number between a and b."""
    flip = a > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    top = torch.special.log_ndtr(b)
    return top + torch.log1p(-torch.exp(torch.special.log_ndtr(a) - top).clamp(max=1 - 1e-15))


def scores(shares: Tensor) -> Tensor:
    """Standard normal quantiles; -infinity of 0."""
    return torch.special.ndtri(shares)
