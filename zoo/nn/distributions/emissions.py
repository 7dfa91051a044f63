"""Distributions of the next value of a series, whose parameters a network predicts.

    emission.log_prob(params, unit, x)      # (...)
    emission.from_uniform(params, unit, u)  # (...)

`params` (..., n_params) are the outputs of the network, and x (...) the values from their location. `unit` (...) is
their scale, so that the network works with numbers near one. u (..., 2) is uniform.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.distributions.likelihoods import LikelihoodKind

EmissionName = Literal["gaussian", "student_t", "negative_binomial"]
LEAST = 1e-3  # standard deviation, in units
SMALL = 1e-7  # of uniform numbers


class Emission:
    """A distribution of real numbers."""

    n_params: int
    kind: LikelihoodKind = "continuous"
    counts = False  # whether values are whole numbers from 0

    def log_prob(self, params: Tensor, unit: Tensor, x: Tensor) -> Tensor:
        """Log-density or log-probability of values x (...), nats."""
        raise NotImplementedError

    def from_uniform(self, params: Tensor, unit: Tensor, u: Tensor) -> Tensor:
        """Values (...) from uniform numbers (..., 2)."""
        raise NotImplementedError


class Gaussian(Emission):
    """Normal distribution: mean and standard deviation."""

    n_params = 2

    def log_prob(self, params: Tensor, unit: Tensor, x: Tensor) -> Tensor:
        """Log-density."""
        mean, std = params[..., 0], F.softplus(params[..., 1]) + LEAST
        z = (x / unit - mean) / std
        return -0.5 * (z.square() + math.log(2 * math.pi)) - std.log() - unit.log()

    def from_uniform(self, params: Tensor, unit: Tensor, u: Tensor) -> Tensor:
        """By the Box-Muller transform."""
        mean, std = params[..., 0], F.softplus(params[..., 1]) + LEAST
        radius = (-2 * u[..., 0].clamp(min=SMALL).log()).sqrt()
        return unit * (mean + std * radius * torch.cos(2 * math.pi * u[..., 1]))


class StudentT(Emission):
    """Student's t distribution, for heavy tails: location, scale, and degrees of freedom above 2."""

    n_params = 3

    def log_prob(self, params: Tensor, unit: Tensor, x: Tensor) -> Tensor:
        """Log-density."""
        mean, scale, df = self.parts(params)
        z = (x / unit - mean) / scale
        norm = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log()
        return norm - (df + 1) / 2 * torch.log1p(z.square() / df) - scale.log() - unit.log()

    def parts(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Location, scale and degrees of freedom."""
        return params[..., 0], F.softplus(params[..., 1]) + LEAST, 2 + F.softplus(params[..., 2])

    def from_uniform(self, params: Tensor, unit: Tensor, u: Tensor) -> Tensor:
        """By the polar transform (Bailey 1994, Mathematics of Computation 62)."""
        mean, scale, df = self.parts(params)
        radius = (df * torch.expm1(-2 / df * u[..., 0].clamp(min=SMALL).log())).sqrt()
        return unit * (mean + scale * radius * torch.cos(2 * math.pi * u[..., 1]))


class NegativeBinomial(Emission):
    """Negative binomial distribution of counts: mean m and shape 1 / a, so that the variance is m + a m^2."""

    n_params = 2
    kind: LikelihoodKind = "discrete"
    counts = True

    def parts(self, params: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, and shape 1 / a (Salinas et al. 2020, section 3.1: a is divided by the root of the unit)."""
        mean, a = F.softplus(params[..., 0]), F.softplus(params[..., 1])
        return (unit * mean).clamp(min=1e-6), (unit.sqrt() / a.clamp(min=1e-4))

    def log_prob(self, params: Tensor, unit: Tensor, x: Tensor) -> Tensor:
        """Log-probability of counts, in double precision: large terms cancel where the law is nearly Poisson."""
        mean, shape = self.parts(params.double(), unit.double())
        count = x.double()
        choose = torch.lgamma(count + shape) - torch.lgamma(shape) - torch.lgamma(count + 1)
        log_prob = choose - shape * torch.log1p(mean / shape) + count * (mean.log() - (mean + shape).log())
        return log_prob.to(params.dtype)

    def from_uniform(self, params: Tensor, unit: Tensor, u: Tensor) -> Tensor:
        """By the inverse of the distribution function, on the CPU."""
        from scipy.stats import nbinom

        mean, shape = (part.double().cpu() for part in self.parts(params, unit))
        drawn = nbinom.ppf(u[..., 0].double().cpu().numpy(), shape.numpy(), (shape / (shape + mean)).numpy())
        return torch.as_tensor(drawn).to(params)


EMISSIONS: dict[str, type[Emission]] = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}
