"""Transitions of discrete diffusion in T steps: their posterior, and the terms of the bound.

All of them keep a token or draw it again: q(x_t | x_0) = a_t [x_t = x_0] + (1 - a_t) pi(x_t), where a_0 = 1 and a_T = 0
(Austin et al. 2021, arXiv:2107.03006, appendix A.2). They differ in the distribution pi.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.nn.diffusion.masking import Schedule, masked_share
from zoo.nn.distributions.mixtures import categorical_from_uniform

TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Transition:
    """Base class of transitions. Subclasses write `limit`.

    Args:
        steps: T.
        schedule: of a_t: "linear" is 1 - t / T, and "cosine" is cos^2(pi t / (2 T)) (Nichol & Dhariwal 2021).
    """

    registered_name: ClassVar[str]
    steps: PositiveInt = 64
    schedule: Schedule = "linear"

    def limit(self, n_tokens: int) -> Tensor:
        """pi over the tokens and, last, the mask token: (n_tokens + 1,), float64."""
        raise NotImplementedError

    def kept(self, t: Tensor) -> Tensor:
        """a_t, the probability that a token is unchanged since step 0, of steps (B,), float64."""
        ratio = t.double() / self.steps
        a = masked_share(ratio, self.schedule)
        return torch.where(t >= self.steps, 0, a if self.schedule == "linear" else a.square())

    def times(self, steps: int | None) -> list[int]:
        """Steps to visit while sampling, from T to 0; None visits all.

        Raises:
            ConfigError: more than T.
        """
        if steps is not None and steps > self.steps:
            raise ConfigError(f"steps={steps}: the transition has {self.steps}. Choose at most {self.steps}.")
        return (self.steps - torch.arange((steps or self.steps) + 1) * self.steps // (steps or self.steps)).tolist()

    def noisy(self, x: Tensor, t: Tensor, uniform: Tensor, limit: Tensor) -> Tensor:
        """Draw x_t (B, T) from q(x_t | x_0).

        Args:
            x: x_0, (B, T).
            t: steps (B,).
            uniform: two uniform numbers for each token, (2, B, T).
            limit: pi, (K,).
        """
        anew = categorical_from_uniform(limit, uniform[1].flatten().double()).view_as(x)
        return torch.where(uniform[0] < self.kept(t)[:, None], x, anew)

    def posterior(self, x_t: Tensor, clean: Tensor, s: Tensor, t: Tensor, limit: Tensor) -> Tensor:
        """q(x_s | x_t) = sum over x_0 of p(x_0) q(x_s | x_t, x_0), of steps s < t: (B, T, K).

        With p(x_0) the exact distribution given x_t, that is the exact reverse step. Values of x_0 that x_t rules out
        are left out: a token that is not masked is the clean one. In equation 4 of Austin et al. 2021, p(x_0) is
        multiplied by q(x_t | x_0) as well, so that the network has to divide by it.

        Args:
            x_t: noisy tokens (B, T).
            clean: p(x_0), (B, T, K).
            s: earlier steps (B,).
            t: steps of x_t, (B,).
            limit: pi, (K,).
        """
        a_s, a_t = (self.kept(step).to(clean)[:, None, None] for step in (s, t))
        limit = limit.to(clean)
        a_ts, here = a_t / a_s, torch.zeros_like(clean).scatter(2, x_t[..., None], 1.0)  # (B, 1, 1), (B, T, K)
        anew = limit[x_t][..., None]  # pi(x_t), (B, T, 1)
        of_clean = a_t * here + (1 - a_t) * anew  # q(x_t | x_0) by x_0
        possible = clean * (of_clean > 0)
        weight = possible / possible.sum(-1, keepdim=True).clamp(min=TINY) / of_clean.clamp(min=TINY)
        of_previous = a_ts * here + (1 - a_ts) * anew  # q(x_t | x_s) by x_s
        return of_previous * (a_s * weight + (1 - a_s) * limit * weight.sum(-1, keepdim=True))

    def bound_term(self, x: Tensor, x_t: Tensor, clean: Tensor, t: Tensor, limit: Tensor) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats by position, (B, T); -log p(x_0 | x_1) where t = 1.

        The sum over t = 1 ... T is the bound on -log p(x), since q(x_T | x_0) = pi (Austin et al. 2021, equation 1).

        Args:
            x: x_0, (B, T).
            x_t: noisy tokens (B, T).
            clean: the network's p(x_0), (B, T, K).
            t: steps (B,), from 1.
            limit: pi, (K,).
        """
        exact = torch.zeros_like(clean).scatter(2, x[..., None], 1.0)
        true, model = (self.posterior(x_t, p, t - 1, t, limit) for p in (exact, clean))
        return (torch.xlogy(true, true) - torch.xlogy(true, model.clamp(min=TINY))).sum(-1)


@register("transition", "absorbing")
@dataclass(frozen=True, kw_only=True)
class Absorbing(Transition):
    """A token becomes the mask token, and stays so."""

    def limit(self, n_tokens: int) -> Tensor:
        """See `Transition`."""
        return torch.eye(n_tokens + 1, dtype=torch.float64)[-1]


@register("transition", "uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform(Transition):
    """A token becomes any token (Hoogeboom et al. 2021, arXiv:2102.05379)."""

    schedule: Schedule = "cosine"

    def limit(self, n_tokens: int) -> Tensor:
        """See `Transition`."""
        return torch.cat([torch.full((n_tokens,), 1 / n_tokens, dtype=torch.float64), torch.zeros(1).double()])
