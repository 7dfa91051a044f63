"""Samplers of masked diffusion: they replace masks by tokens, several at a time.

A network maps tokens with masks to logits at every position. All random numbers are uniform numbers by name and
position, so that those of a sample do not depend on the other samples. A token is drawn by inverting the distribution
function in float64: Gumbel noise in float32 truncates tails (Zheng et al. 2024, arXiv:2409.02908).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative, PositiveInt
from zoo.nn.diffusion.masking import Schedule, masked_share, ratio_of_share
from zoo.nn.samplers.noise import fork
from zoo.nn.samplers.sampling_params import SamplingParams

Predict = Callable[[Tensor], Tensor]  # tokens (B, T) -> logits (B, T, V)
Noise = Callable[[str], Tensor]  # name -> uniform numbers in [0, 1), (B, T)
State = tuple[Tensor, Tensor]  # tokens (B, T), and the log-probability with which each was drawn, in nats


def uniform_noise(n: int, length: int, generator: torch.Generator | None, device: torch.device | str) -> Noise:
    """Uniform numbers (n, length) by name; "order" is drawn from the generator, and others from forks of it."""
    begin = torch.Generator()
    begin.set_state((torch.default_generator if generator is None else generator).get_state())
    order = torch.rand(n, length, generator=generator).to(device)

    def draw(name: str) -> Tensor:
        return order if name == "order" else torch.rand(n, length, generator=fork(begin, name)).to(device)

    return draw


def draw_tokens(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) from logits (B, T, V) and uniform numbers (B, T); and their log-probabilities without `params`."""
    logits = logits.double()
    tokens = params.sample(logits.flatten(0, 1), uniform.flatten().double()).view_as(uniform)
    return tokens, logits.log_softmax(-1).gather(2, tokens[..., None]).squeeze(2)


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """Base class of samplers. Subclasses write `unmask`.

    Args:
        steps: evaluations of the network.
        schedule: share of masks left after each step: "linear", or "cosine", which begins with few tokens.
    """

    registered_name: ClassVar[str]
    exportable: ClassVar[bool] = False  # a fixed number of evaluations, of one number for each position and name
    steps: PositiveInt = 64
    schedule: Schedule = "linear"

    def unmask(
        self, predict: Predict, tokens: Tensor, hidden: Tensor, mask: int, noise: Noise, params: SamplingParams
    ) -> Iterator[State]:
        """Yield the state after each step; the last one has no masks among `hidden`.

        Args:
            predict: the network.
            tokens: with masks, (B, T).
            hidden: masks to replace, (B, T). Other masks stay, which is a marginal of the model.
            mask: the mask token.
            noise: random numbers.
            params: of each token's distribution.
        """
        raise NotImplementedError


def predict_rows(
    predict: Predict, tokens: Tensor, here: Tensor, uniform: Tensor, params: SamplingParams, log_p: Tensor
) -> State:
    """Draw tokens at positions `here` (B, T); rows without any keep their tokens without an evaluation."""
    if torch.compiler.is_exporting():
        new, sure = draw_tokens(predict(tokens), uniform, params)
        return torch.where(here, new, tokens), torch.where(here, sure, log_p)
    rows = here.any(1).nonzero()[:, 0]
    if not len(rows):
        return tokens, log_p
    new, sure = draw_tokens(predict(tokens[rows]), uniform[rows], params)
    tokens, log_p = tokens.clone(), log_p.clone()
    tokens[rows] = torch.where(here[rows], new, tokens[rows])
    log_p[rows] = torch.where(here[rows], sure, log_p[rows])
    return tokens, log_p


@register("sampler", "ancestral")
@dataclass(frozen=True, kw_only=True)
class AncestralUnmasking(Unmasking):
    """Each mask is replaced at a random time, independent of the others (Sahoo et al. 2024, arXiv:2406.07524).

    A step from time t to s replaces each mask with probability (t - s) / t. That is the same as one uniform time for
    each mask, drawn in advance. Rows in which a step replaces nothing are not evaluated.
    """

    exportable: ClassVar[bool] = True

    def step_of(self, hidden: Tensor, order: Tensor) -> Tensor:
        """The step (B, T) that replaces each mask, from uniform numbers (B, T)."""
        return (ratio_of_share(1 - order, self.schedule) * self.steps).long().clamp(max=self.steps - 1)

    def unmask(
        self, predict: Predict, tokens: Tensor, hidden: Tensor, mask: int, noise: Noise, params: SamplingParams
    ) -> Iterator[State]:
        """See `Unmasking`."""
        step, uniform = self.step_of(hidden, noise("order")), noise("token")
        log_p = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        for index in range(self.steps):
            tokens, log_p = predict_rows(predict, tokens, hidden & (step == index), uniform, params, log_p)
            yield tokens, log_p


@register("sampler", "any_order")
@dataclass(frozen=True, kw_only=True)
class AnyOrderUnmasking(AncestralUnmasking):
    """Masks are replaced in a random order, equally many in each step, or as the schedule has it.

    With as many steps as masks and the linear schedule, one token follows another, by the chain rule.
    """

    def step_of(self, hidden: Tensor, order: Tensor) -> Tensor:
        """See `AncestralUnmasking`."""
        rank = order.masked_fill(~hidden, torch.inf).argsort(1).argsort(1)
        return super().step_of(hidden, (rank.double() + 0.5) / hidden.sum(1, keepdim=True).clamp(min=1))


@register("sampler", "remasking")
@dataclass(frozen=True, kw_only=True)
class Remasking(Unmasking):
    """ReMDM: a step also hides tokens again, so that mistakes are corrected (Wang et al. 2025, arXiv:2503.00307).

    With a = 1 - (share of masks), a step from t to s hides each token with probability sigma. It replaces each mask
    with probability (a_s - (1 - sigma) a_t) / (1 - a_t). So every step keeps the marginals of masked diffusion.

    Args:
        eta: strength; 0 is ancestral sampling.
        rule: sigma is min(eta, sigma_max) ("cap"), or eta sigma_max ("rescale"); sigma_max = min(1, (1 - a_s) / a_t).
    """

    eta: Fraction = 0.02
    rule: Literal["cap", "rescale"] = "cap"

    def probabilities(self, index: int) -> tuple[float, float]:
        """Probabilities of one step: that a token is hidden again, and that a mask is replaced."""
        ratios = torch.tensor([index, index + 1], dtype=torch.float64) / self.steps
        a_t, a_s = (1 - masked_share(ratios, self.schedule)).tolist()
        if index + 1 == self.steps:
            return 0.0, 1.0
        most = min(1.0, (1 - a_s) / a_t) if a_t else 1.0
        sigma = min(self.eta, most) if self.rule == "cap" else self.eta * most
        return sigma, (a_s - (1 - sigma) * a_t) / (1 - a_t)

    def unmask(
        self, predict: Predict, tokens: Tensor, hidden: Tensor, mask: int, noise: Noise, params: SamplingParams
    ) -> Iterator[State]:
        """See `Unmasking`."""
        log_p = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        for index in range(self.steps):
            (hide, reveal), chance = self.probabilities(index), noise(f"fate {index}")
            masked = tokens == mask
            here, again = hidden & masked & (chance < reveal), hidden & ~masked & (chance < hide)
            tokens, log_p = predict_rows(predict, tokens, here, noise(f"token {index}"), params, log_p)
            tokens, log_p = tokens.masked_fill(again, mask), log_p.masked_fill(again, 0)
            yield tokens, log_p


@register("sampler", "confidence")
@dataclass(frozen=True, kw_only=True)
class ConfidenceUnmasking(Unmasking):
    """MaskGIT: the likeliest of the drawn tokens stay (Chang et al. 2022, arXiv:2202.04200, section 3.2).

    A step draws a token for each mask. It keeps those with the largest log p + c (1 - r) g. Here r is the ratio of the
    steps done, and g is Gumbel noise. The distribution is not that of the model: it favours likely samples.

    Args:
        choice_temperature: c, the randomness of the order; 0 takes the likeliest first.
    """

    steps: PositiveInt = 12
    schedule: Schedule = "cosine"
    choice_temperature: NonNegative = 4.5

    def unmask(
        self, predict: Predict, tokens: Tensor, hidden: Tensor, mask: int, noise: Noise, params: SamplingParams
    ) -> Iterator[State]:
        """See `Unmasking`."""
        log_p = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        total, left = hidden.sum(1), hidden
        for index in range(self.steps):
            ratio = torch.tensor((index + 1) / self.steps, dtype=torch.float64)
            after = (total * float(masked_share(ratio, self.schedule).clamp(0, 1)) + 1e-9).long()
            after = torch.minimum(after, left.sum(1) - 1).clamp(min=0) * (index + 1 < self.steps)
            drawn, sure = predict_rows(predict, tokens, left, noise(f"token {index}"), params, log_p)
            gumbel = -torch.log(-torch.log(noise(f"choice {index}").double().clamp(min=1e-12)))
            score = sure + self.choice_temperature * (1 - float(ratio)) * gumbel
            stays = score.masked_fill(~left, torch.inf).argsort(1).argsort(1) < after[:, None]  # the least likely
            tokens, log_p, left = torch.where(stays, tokens, drawn), torch.where(stays, log_p, sure), left & stays
            yield tokens, log_p
