"""Likelihoods p(x | params) whose parameters a decoder predicts.

    likelihood = Gaussian(spec)
    params = decoder(z)                    # (B, likelihood.params_per_value * C, H, W), or (B, ... * D)
    likelihood.log_prob(params, x)         # (B,) nats, summed over dimensions
    likelihood.mean(params)                # (B, *shape)
    likelihood.sample(params, generator)   # (B, *shape)

Everything is computed in at least 32 bits, whatever the decoder's precision: sums have thousands of terms.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Positive
from zoo.core.space import PixelSpace
from zoo.core.spaces import Interactions
from zoo.core.spec import DataSpec
from zoo.nn.samplers.noise import normal

LikelihoodKind = Literal["discrete", "continuous", "none"]  # probability of levels or tokens, density, or neither
LOG_STD_BOUND = 6.0  # as in Rybkin et al. 2020: a constant pixel must not outweigh the rest
LOG_SCALE_BOUND = 7.0  # at least, of a logistic distribution over [0, 1]
SHARP = 3.5  # a scale of exp(-3.5) levels puts all but 1e-7 of the probability on one of them


class Likelihood(nn.Module):
    """Base class of p(x | params).

    Args:
        spec: shape and kind of the data.

    Raises:
        ZooError: an image likelihood for data that is not an image.
    """

    params_per_value: int = 1  # decoder outputs per value of the data
    images_only: bool = False
    kind: LikelihoodKind = "none"  # whether `log_prob` is a log-probability or a log-density
    registered_name: str

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if self.images_only and not isinstance(spec.x, PixelSpace):
            raise ZooError(
                f"likelihood={self.registered_name}: needs pixels in [0, 1], but {spec} is {spec.x.registered_name}. "
                "Choose model.likelihood=gaussian."
            )
        self.spec = spec

    @property
    def params_shape(self) -> tuple[int, ...]:
        """Shape of the decoder's output for one sample."""
        first, *rest = self.spec.shape
        return (self.params_per_value * first, *rest)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood per sample, summed over dimensions, nats (B,)."""
        raise NotImplementedError

    def mean(self, params: Tensor) -> Tensor:
        """Expected x, (B, *shape)."""
        raise NotImplementedError

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One sample of x per row, (B, *shape); `generator` is on the CPU."""
        raise NotImplementedError


@register("likelihood", "bernoulli")
class Bernoulli(Likelihood):
    """Independent Bernoulli pixels with probability sigmoid(params).

    On binary images this is a likelihood. On grey images it is a cross-entropy with soft targets, whose minimum is the
    entropy of the pixels. That is a valid objective but not a likelihood: do not convert it to bits/dim.
    """

    images_only = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.kind = "discrete" if spec.image.levels == 2 else "none"

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """x log p + (1 - x) log(1 - p), from the logits; nats (B,)."""
        logits = at_least_float32(params)
        nats = -F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none")
        return nats.flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """Probabilities (B, *shape)."""
        return at_least_float32(params).sigmoid()

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Zeros and ones (B, *shape)."""
        p = self.mean(params)
        return (_uniform(p, generator) < p).to(p.dtype)


@register("likelihood", "gaussian")
class Gaussian(Likelihood):
    """Independent normal values with the decoder's output as mean.

    Args:
        spec: shape and kind of the data.
        variance: "shared" learns one, which balances reconstruction against KL (sigma-VAE, Rybkin et al. 2020,
            2006.13202); "per_value" is predicted by the decoder; "fixed" is constant.
        std: fixed or initial standard deviation. Start small: latents whose KL does not pay at first may never be used
            again.
    """

    kind = "continuous"

    def __init__(
        self,
        spec: DataSpec,
        *,
        variance: Literal["shared", "per_value", "fixed"] = "shared",
        std: Positive = 0.2,
    ) -> None:
        super().__init__(spec)
        self.variance, self.log_std = variance, math.log(std)
        self.bound = max(LOG_STD_BOUND, 1.25 * abs(self.log_std))  # a given one must be inside
        self.init_log_std = self.bound * math.atanh(self.log_std / self.bound)  # before `soft_clamp`
        self.params_per_value = 2 if variance == "per_value" else 1
        if variance == "shared":
            self.raw_log_std = nn.Parameter(torch.tensor(self.init_log_std))

    def mean_and_log_std(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, broadcastable to (B, *shape)."""
        params = at_least_float32(params)
        if self.variance == "per_value":
            mean, raw = params.chunk(2, dim=1)
            return mean, soft_clamp(raw + self.init_log_std, self.bound)
        if self.variance == "shared":
            return params, soft_clamp(self.raw_log_std, self.bound)
        return params, params.new_tensor(self.log_std)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-density -(x - mean)^2 / 2 sigma^2 - log sigma - log(2 pi) / 2, nats (B,)."""
        mean, log_std = self.mean_and_log_std(params)
        if log_std.dim() == 0:  # scalar: three passes over the data instead of ten
            squares = F.mse_loss(mean, x, reduction="none").flatten(1).sum(1)
            return -0.5 * squares * torch.exp(-2 * log_std) - x[0].numel() * (log_std + 0.5 * math.log(2 * math.pi))
        nats = -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - 0.5 * math.log(2 * math.pi)
        return nats.flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """Mean (B, *shape)."""
        return self.mean_and_log_std(params)[0]

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """mean + sigma noise, (B, *shape)."""
        mean, log_std = self.mean_and_log_std(params)
        return mean + log_std.exp() * normal(*mean.shape, generator=generator).to(mean)


@register("likelihood", "discretised_logistic")
class DiscretisedLogistic(Likelihood):
    """Probability mass of a logistic distribution on each grey level (Kingma et al. 2016, 1606.04934).

    A bin extends half a level to both sides, the outermost ones to infinity. The probabilities of all levels sum to
    one, so nats are comparable between models of the same levels. The decoder predicts location and log scale; zeros
    mean one half, give or take a quarter.
    """

    params_per_value = 2
    images_only = True
    kind = "discrete"

    def location_and_inverse_scale(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Location and inverse scale, both (B, *shape), in units of a level.

        In these units the edges k + 1/2 are exact, and neighbouring bins agree on their common edge.
        """
        location, raw = at_least_float32(params).chunk(2, dim=1)
        steps = self.spec.image.n_levels - 1
        bound = max(LOG_SCALE_BOUND, math.log(steps) + SHARP)
        return (location + 0.5) * steps, torch.exp(-soft_clamp(raw - 2.0, bound)) / steps

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of the data's levels, nats (B,).

        With a and b the standardised upper and lower edge, sigmoid(a) - sigmoid(b) equals sigmoid(a) sigmoid(-b) (1 -
        exp(b - a)). The logarithm of that product has no cancellation.
        """
        location, inverse_scale = self.location_and_inverse_scale(params)
        level = to_level(x, self.spec.image.levels)
        below = F.logsigmoid((level + 0.5 - location) * inverse_scale)  # log P(below the upper edge)
        above = F.logsigmoid((location - (level - 0.5)) * inverse_scale)  # log P(above the lower edge)
        inside = below + above + torch.log(-torch.expm1(-inverse_scale))
        nats = torch.where(level == 0, below, torch.where(level == self.spec.image.levels - 1, above, inside))
        return nats.flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """Exact mean over the levels, (B, *shape): the sum of P(x >= level), level by level to save memory."""
        location, inverse_scale = self.location_and_inverse_scale(params)
        mean = torch.zeros_like(location)
        for level in range(1, self.spec.image.levels):
            mean += ((location - (level - 0.5)) * inverse_scale).sigmoid()
        return mean / (self.spec.image.levels - 1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logistic sample rounded to the nearest level, (B, *shape)."""
        location, inverse_scale = self.location_and_inverse_scale(params)
        draw = location + _uniform(location, generator).logit() / inverse_scale
        return draw.round().clamp(0, self.spec.image.levels - 1) / (self.spec.image.levels - 1)


@register("likelihood", "categorical")
class Categorical(Likelihood):
    """One softmax over the grey levels per value, with as many decoder outputs per value: for few levels."""

    images_only = True
    kind = "discrete"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.params_per_value = spec.image.n_levels

    def log_probs(self, params: Tensor) -> Tensor:
        """Log-probabilities of all levels, (B, levels, *shape)."""
        return at_least_float32(params).unflatten(1, (self.spec.image.levels, -1)).log_softmax(1)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of the data's levels, nats (B,)."""
        level = to_level(x, self.spec.image.levels).long()[:, None]
        return self.log_probs(params).gather(1, level).flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """Mean over the levels, (B, *shape)."""
        probs = self.log_probs(params).exp()
        values = torch.linspace(0, 1, self.spec.image.levels, device=probs.device, dtype=probs.dtype)
        return (probs * values.view(-1, *[1] * (probs.dim() - 2))).sum(1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample by inverting the cumulative distribution, (B, *shape)."""
        below = self.log_probs(params).exp().cumsum(1)[:, :-1]  # P(x <= level), except the last
        level = (_uniform(below[:, :1], generator) > below).sum(1)
        return level.to(below.dtype) / (self.spec.image.levels - 1)


@register("likelihood", "multinomial")
class Multinomial(Likelihood):
    """Counts of items, given their total: a multinomial with probabilities softmax(params).

    Liang et al. 2018 (Mult-VAE, 1802.05814), equation 2, here with the multinomial coefficient. The total is not
    modelled, so `mean` and `sample` are of one interaction.

    Raises:
        ZooError: data that are not interactions.
    """

    kind = "discrete"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        if not isinstance(spec.x, Interactions):
            raise ZooError(
                f"likelihood=multinomial: needs interactions, but {spec} is {spec.x.registered_name}. "
                "Choose model.likelihood=gaussian."
            )

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """log N! - sum log x! + sum x log p, with N the sum of x; nats (B,)."""
        logits = at_least_float32(params)
        x = x.to(logits.dtype)
        coefficient = torch.lgamma(x.sum(1) + 1) - torch.lgamma(x + 1).sum(1)
        return coefficient + (x * logits.log_softmax(1)).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """Probabilities of the items (B, I)."""
        return at_least_float32(params).softmax(1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One interaction of each row, as zeros and a one (B, I), by inverting the cumulative distribution."""
        below = self.mean(params).cumsum(1)[:, :-1]
        item = (_uniform(below[:, :1], generator) > below).sum(1)
        return F.one_hot(item, params.shape[1]).to(below.dtype)


def soft_clamp(raw: Tensor, bound: float) -> Tensor:
    """bound * tanh(raw / bound): limits `raw` to +-bound, so that its exponential stays finite."""
    return bound * torch.tanh(raw / bound)


def to_level(x: Tensor, levels: int) -> Tensor:
    """Nearest level 0 ... levels - 1 of values in [0, 1]."""
    return (x * (levels - 1)).round().clamp(0, levels - 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Cast half precisions to float32; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator).to(like)
