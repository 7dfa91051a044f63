"""What a decoder's output says about the data: distributions over x whose parameters a network gives.

    likelihood = Gaussian(spec)
    params = decoder(z)                    # (B, likelihood.channels * C, H, W), or (B, likelihood.channels *
    D) likelihood.log_prob(params, x)         # (B,) nats, summed over dimensions likelihood.mean(params)
    # (B, *shape) likelihood.sample(params, generator)   # (B, *shape)

All of it is computed in at least 32 bits, whatever precision the decoder ran in: a sum of thousands of terms
is no place for bfloat16.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Positive
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec

LikelihoodKind = Literal["discrete", "continuous", "none"]  # probability of levels or tokens, density, or neither
LOG_STD_BOUND = 6.0  # Rybkin et al. 2020 keep log sigma above -6: one constant pixel would outweigh the rest
LOG_SCALE_BOUND = 7.0  # of the logistic: at exp(-7) all probability is on one of 256 levels


class Likelihood(nn.Module):
    """p(x | params).

    Args:
        spec: what the data looks like.

    Raises:
        ZooError: the likelihood describes images on a grid of levels, and the data is something else.
    """

    channels: int = 1  # numbers that the decoder gives for each value of the data
    images_only: bool = False
    kind: LikelihoodKind = "none"  # what `log_prob` is the logarithm of
    registered_name: str

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if self.images_only and not isinstance(spec.x, Image):
            raise ZooError(
                f"likelihood {self.registered_name} describes pixels in [0, 1], but {spec} is {spec.x.registered_name}: "
                "choose model.likelihood=gaussian."
            )
        self.spec = spec

    @property
    def params_shape(self) -> tuple[int, ...]:
        """What the decoder has to give for one sample."""
        first, *rest = self.spec.shape
        return (self.channels * first, *rest)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Nats per sample, summed over dimensions, (B,)."""
        raise NotImplementedError

    def mean(self, params: Tensor) -> Tensor:
        """The expected x, (B, *shape)."""
        raise NotImplementedError

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of x for each row, (B, *shape); the generator is a CPU one."""
        raise NotImplementedError


@register("likelihood", "bernoulli")
class Bernoulli(Likelihood):
    """Independent pixels, each on with probability sigmoid(params).

    On binary images this is a probability. On grey ones it is a cross-entropy with soft targets: a good
    objective whose least value is the entropy of the pixels rather than zero, but no likelihood; do not read
    it in bits/dim.
    """

    images_only = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.kind = "discrete" if spec.image.levels == 2 else "none"

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """x log p + (1 - x) log(1 - p), from the logits; (B,)."""
        logits = at_least_float32(params)
        nats = -F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none")
        return nats.flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """The probabilities."""
        return at_least_float32(params).sigmoid()

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Zeros and ones."""
        p = self.mean(params)
        return (_uniform(p, generator) < p).to(p.dtype)


@register("likelihood", "gaussian")
class Gaussian(Likelihood):
    """Independent normal values around the decoder's output.

    Args:
        spec: what the data looks like.
        variance: "shared" learns one for the model, which weighs reconstruction against KL by itself
            (sigma-VAE, Rybkin et al. 2020, 2006.13202); "per_value" lets the decoder predict one for every
            value; "fixed" stays.
        std: the fixed standard deviation, or where learning starts: small, for a latent that is not worth its
            KL at first may never be taken up again.
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
        self.variance, self.start = variance, math.log(std)
        self.channels = 2 if variance == "per_value" else 1
        if variance == "shared":
            self.raw = nn.Parameter(torch.tensor(self.start))

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, broadcastable to (B, *shape)."""
        params = at_least_float32(params)
        if self.variance == "per_value":
            mean, raw = params.chunk(2, dim=1)
            return mean, soft_clamp(raw + self.start, LOG_STD_BOUND)
        if self.variance == "shared":
            return params, soft_clamp(self.raw, LOG_STD_BOUND)
        return params, params.new_tensor(self.start)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """-(x - mean)^2 / 2 sigma^2 - log sigma - log(2 pi) / 2, (B,): of a density."""
        mean, log_std = self.split(params)
        if log_std.dim() == 0:  # the same for all values: three passes over them and not ten
            squares = F.mse_loss(mean, x, reduction="none").flatten(1).sum(1)
            return -0.5 * squares * torch.exp(-2 * log_std) - x[0].numel() * (log_std + 0.5 * math.log(2 * math.pi))
        nats = -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - 0.5 * math.log(2 * math.pi)
        return nats.flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """The mean."""
        return self.split(params)[0]

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """mean + sigma noise."""
        mean, log_std = self.split(params)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator).to(mean)


@register("likelihood", "discretised_logistic")
class DiscretisedLogistic(Likelihood):
    """The mass that a logistic distribution puts on each grey level (Kingma et al. 2016, 1606.04934).

    A bin reaches half a level to both sides, the outermost ones to infinity: the probabilities of all levels
    sum to one, so nats are comparable with any other model of the same levels. The decoder gives location and
    log scale; with zeros it says one half, give or take a quarter.
    """

    channels = 2
    images_only = True
    kind = "discrete"

    def in_levels(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Location and inverse scale, both (B, *shape), in units of a level.

        There the edges k + 1/2 are exact, and neighbouring bins agree on the one they share.
        """
        location, raw = at_least_float32(params).chunk(2, dim=1)
        steps = self.spec.image.levels - 1
        return (location + 0.5) * steps, torch.exp(-soft_clamp(raw - 2.0, LOG_SCALE_BOUND)) / steps

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """log of the probability of each level, (B,).

        With a and b the standardised upper and lower edge, sigmoid(a) - sigmoid(b) equals
        sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm cancels nowhere.
        """
        location, slope = self.in_levels(params)
        level = to_level(x, self.spec.image.levels)
        below = F.logsigmoid((level + 0.5 - location) * slope)  # log of the mass up to the upper edge
        above = F.logsigmoid((location - (level - 0.5)) * slope)  # log of the mass from the lower edge on
        inside = below + above + torch.log(-torch.expm1(-slope))
        nats = torch.where(level == 0, below, torch.where(level == self.spec.image.levels - 1, above, inside))
        return nats.flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """The exact mean over the levels, as the sum of P(x >= level); level by level, to spare memory."""
        location, slope = self.in_levels(params)
        mean = torch.zeros_like(location)
        for level in range(1, self.spec.image.levels):
            mean += ((location - (level - 0.5)) * slope).sigmoid()
        return mean / (self.spec.image.levels - 1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A logistic draw, rounded to its level."""
        location, slope = self.in_levels(params)
        draw = location + _uniform(location, generator).logit() / slope
        return draw.round().clamp(0, self.spec.image.levels - 1) / (self.spec.image.levels - 1)


@register("likelihood", "categorical")
class Categorical(Likelihood):
    """A free probability for each grey level, from as many decoder outputs per value: for few levels."""

    images_only = True
    kind = "discrete"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.channels = spec.image.levels

    def log_probs(self, params: Tensor) -> Tensor:
        """Of all levels: (B, levels, *shape)."""
        return at_least_float32(params).unflatten(1, (self.spec.image.levels, -1)).log_softmax(1)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """log of the probability of each level, (B,)."""
        level = to_level(x, self.spec.image.levels).long()[:, None]
        return self.log_probs(params).gather(1, level).flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        """The mean over the levels."""
        probs = self.log_probs(params).exp()
        values = torch.linspace(0, 1, self.spec.image.levels, device=probs.device, dtype=probs.dtype)
        return (probs * values.view(-1, *[1] * (probs.dim() - 2))).sum(1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """By inverting the distribution function."""
        below = self.log_probs(params).exp().cumsum(1)[:, :-1]  # P(x <= level), but for the last
        level = (_uniform(below[:, :1], generator) > below).sum(1)
        return level.to(below.dtype) / (self.spec.image.levels - 1)


def soft_clamp(raw: Tensor, bound: float) -> Tensor:
    """`raw` where it is small, kept within +-bound, so that its exponential stays finite."""
    return bound * torch.tanh(raw / bound)


def to_level(x: Tensor, levels: int) -> Tensor:
    """The nearest grid number 0 ... levels - 1 of values in [0, 1]."""
    return (x * (levels - 1)).round().clamp(0, levels - 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precisions made single; double stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator).to(like)
