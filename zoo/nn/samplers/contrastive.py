"""Contrastive decoding: tokens that a large model finds likelier than a small one, the amateur.

It avoids what small models overrate, such as repetition (Li et al. 2022, 2210.15097).
"""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.nn.samplers.autoregressive import IncrementalDecoder

PLAUSIBLE = 0.1  # the paper's alpha


def contrastive_logits(expert: Tensor, amateur: Tensor, alpha: float, temperature: float = 1.0) -> Tensor:
    """log p_expert - log p_amateur (..., V) of plausible tokens, -inf of the rest (equations 2 and 3).

    Plausible tokens have at least `alpha` times the probability of the expert's likeliest token.

    Args:
        expert: logits (..., V).
        amateur: logits (..., V).
        alpha: greater than 0 and at most 1, which is greedy decoding of the expert.
        temperature: of the amateur.
    """
    one, other = expert.float().log_softmax(-1), (amateur.float() / temperature).log_softmax(-1)
    plausible = one >= one.amax(-1, keepdim=True) + math.log(alpha)
    return (one - other).masked_fill(~plausible, -torch.inf)


class ContrastiveDecoder:
    """An `IncrementalDecoder` whose logits are those of contrastive decoding.

    Args:
        expert: the large model.
        amateur: the small one, of the same tokens.
        alpha: see `contrastive_logits`.
        temperature: of the amateur.

    Raises:
        ConfigError: `alpha` or `temperature` out of range.
    """

    def __init__(
        self,
        expert: IncrementalDecoder,
        amateur: IncrementalDecoder,
        alpha: float = PLAUSIBLE,
        temperature: float = 1.0,
    ) -> None:
        if not 0 < alpha <= 1:
            raise ConfigError(f"alpha={alpha}: out of range. Choose a value greater than 0 and at most 1 (greedy).")
        if not temperature > 0:
            raise ConfigError(f"amateur_temperature={temperature}: out of range. Choose a value greater than 0.")
        self.expert, self.amateur, self.alpha, self.temperature = expert, amateur, alpha, temperature
        self.context = min(expert.context, amateur.context)

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """Process prompts (B, T) with `padding` (B,) tokens before them: next logits (B, V), and both states."""
        (one, mine), (other, theirs) = (each.prefill(tokens, padding) for each in (self.expert, self.amateur))
        return contrastive_logits(one, other, self.alpha, self.temperature), (mine, theirs)

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Append one token per row (B,) to both states: next logits (B, V)."""
        one, other = self.expert.step(tokens, state[0]), self.amateur.step(tokens, state[1])
        return contrastive_logits(one, other, self.alpha, self.temperature)

    def reorder(self, state: Any, rows: Tensor) -> None:
        """Replace row b of both states by row `rows[b]`."""
        self.expert.reorder(state[0], rows)
        self.amateur.reorder(state[1], rows)
