"""Options of sampling tokens, and the distributions that they leave: temperature, top-k, top-p, min-p, typical-p."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import unknown_name_message
from zoo.nn.samplers.constraint import constraint_pattern
from zoo.nn.samplers.logit_rules import RULES

COLDEST, HOTTEST = 1e-30, 1e30  # temperatures below are greedy: all other tokens have probability 0


@dataclass(frozen=True)
class SamplingParams:
    """Sampling options, applied in this order: penalties, biases, n-grams, constraint, temperature, top-k, top-p,
    min-p, typical-p.

    Args:
        temperature: divides the logits; 0 is greedy.
        top_k: keep only the k likeliest tokens, exactly k where several are equal; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens with this much probability (nucleus sampling, Holtzman et al.
            2020, 1904.09751), to within 1e-6.
        repetition_penalty: divides positive and multiplies negative logits of tokens already in the row (Keskar et al.
            2019, 1909.05858).
        min_p: keep only tokens with at least this part of the probability of the likeliest (Nguyen et al. 2024,
            2407.01082); 0 keeps all.
        typical_p: keep the smallest set with this much probability of tokens whose surprise is nearest to the entropy
            (Meister et al. 2022, 2202.00666).
        frequency_penalty: subtracted from the logit of a token for each time that it was generated.
        presence_penalty: subtracted from the logits of tokens that were generated.
        no_repeat_ngram_size: n-grams of this size occur once in a row, prompt included; 0 is off.
        logit_bias: token id -> number added to its logit.
        regex: whole generated texts match it, see `zoo.nn.samplers.regular_language`.
        choices: generated texts are one of these.
        json_schema: generated texts are JSON of this schema, see `zoo.nn.samplers.json_schema`.

    Raises:
        ConfigError: a value out of range, or several constraints.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[Any, float] | None = None
    regex: str = ""
    choices: tuple[str, ...] = ()
    json_schema: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, valid, allowed in (
            ("temperature", 0 <= self.temperature <= HOTTEST, f"from 0 (greedy) to {HOTTEST:g}"),
            ("top_k", self.top_k >= 0, "at least 0 (0 keeps all tokens)"),
            ("top_p", 0 < self.top_p <= 1, "greater than 0 and at most 1"),
            ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100, "from 0.01 to 100 (1 is none)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (keeps all tokens) to 1"),
            ("typical_p", 0 < self.typical_p <= 1, "greater than 0 and at most 1"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "from -2 to 2 (0 is none)"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "from -2 to 2 (0 is none)"),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "at least 0 (0 is off)"),
        ):
            if not valid:
                raise ConfigError(f"{name}={getattr(self, name)}: out of range. Choose a value {allowed}.")
        _ = self.pattern

    @property
    def pattern(self) -> str:
        """The constraint of whole texts as a regular expression; empty for none."""
        return constraint_pattern(self.regex, self.choices, self.json_schema)

    @property
    def truncates(self) -> bool:
        """Whether some tokens get probability zero after the temperature."""
        return bool(self.top_k or self.top_p < 1 or self.min_p or self.typical_p < 1)

    @property
    def has_rules(self) -> bool:
        """Whether options need the tokens of the row, apart from the repetition penalty; see `LogitRules`."""
        return any(getattr(self, name) for name in RULES)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Distribution (B, V) that `sample` draws from, without rules and repetition penalty."""
        if self.temperature < COLDEST:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        logits = logits / self.temperature
        if not self.truncates:
            return logits.softmax(-1)
        kept, order = truncated(logits, self.top_k, self.top_p, self.min_p, self.typical_p)
        return torch.zeros_like(logits).scatter(1, order, kept.softmax(-1))

    def sample(self, logits: Tensor, uniform: Tensor, seen: Tensor | None = None) -> Tensor:
        """Sample tokens (B,) from logits (B, V) by one uniform number in [0, 1) per row, without device
        synchronisation.

        `seen` (B, V) is True for tokens that the repetition penalty applies to.
        """
        if seen is not None:
            penalty = self.repetition_penalty
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self.temperature < COLDEST:
            return logits.argmax(-1)
        logits = logits / self.temperature
        if self.truncates:
            return sample_truncated(logits, uniform, self.top_k, self.top_p, self.min_p, self.typical_p)
        return inverse_cdf(logits, uniform)


def truncated(
    logits: Tensor,
    top_k: int | Tensor,
    top_p: float | Tensor,
    min_p: float | Tensor = 0.0,
    typical_p: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """Logits (B, V) in descending order, -inf where an option removes them, and their tokens (B, V)."""
    logits, order = logits.sort(dim=-1, descending=True, stable=True)  # ties: lower token first
    keep = keep_mask(logits, top_k, top_p)
    if isinstance(min_p, Tensor) or min_p:
        keep &= logits >= logits[:, :1] + torch.as_tensor(min_p, device=logits.device).log()
    if isinstance(typical_p, Tensor) or typical_p < 1:
        keep &= typical_mask(logits.masked_fill(~keep, -torch.inf), typical_p)
    return logits.masked_fill(~keep, -torch.inf), order


def sample_truncated(
    logits: Tensor,
    uniform: Tensor,
    top_k: int | Tensor,
    top_p: float | Tensor,
    min_p: float | Tensor = 0.0,
    typical_p: float | Tensor = 1.0,
) -> Tensor:
    """Sample tokens (B,) from logits (B, V) after top-k, top-p, min-p and typical-p: numbers, or columns (B, 1)."""
    logits, order = truncated(logits, top_k, top_p, min_p, typical_p)
    return order.gather(1, inverse_cdf(logits, uniform)[:, None]).squeeze(1)


def typical_mask(logits: Tensor, typical_p: float | Tensor) -> Tensor:
    """Mask of the logits (B, V) that locally typical sampling keeps, to within 1e-6 of the probability."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p.masked_fill(p == 0, 0)).sum(-1, keepdim=True)
    order = (log_p + entropy).abs().argsort(dim=-1, stable=True)  # impossible tokens are last
    before = p.gather(1, order).cumsum(-1) - p.gather(1, order)
    keep = (before < typical_p - 1e-6) | (torch.arange(logits.shape[-1], device=logits.device) == 0)
    keep |= torch.as_tensor(typical_p, device=logits.device) >= 1
    return torch.zeros_like(keep).scatter(1, order, keep)


def inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample an index (B,) of each row of logits (B, V) by a uniform number (B,) in [0, 1)."""
    cumulative = logits.softmax(-1).cumsum(-1)  # (B, V)
    total = cumulative[:, -1:]
    # First token whose cumulative probability exceeds u * total; rounding must not reach the total itself.
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)


def keep_mask(logits: Tensor, top_k: int | Tensor, top_p: float | Tensor) -> Tensor:
    """Mask of the logits (B, V), sorted in descending order, that top-k and top-p keep; a top-k of 0 keeps all."""
    vocab_size = logits.shape[-1]
    rank = torch.arange(vocab_size, device=logits.device)
    most = torch.where(top_k == 0, vocab_size, top_k) if isinstance(top_k, Tensor) else top_k or vocab_size
    keep = rank < most
    probability = logits.masked_fill(~keep, -torch.inf).softmax(-1)
    before = probability.cumsum(-1) - probability
    return keep & ((before < top_p - 1e-6) | (rank == 0))


def parse_sampling(options: dict[str, Any], others: Sequence[str] = (), **defaults: Any) -> SamplingParams:
    """Build `SamplingParams` from options; None means the default.

    Args:
        options: given by the user.
        others: further options of the caller, for the message about an unknown one.
        **defaults: of options.

    Raises:
        ConfigError: an unknown option.
    """
    known = [*(f.name for f in fields(SamplingParams)), *others]
    for name in options:
        if name not in known:
            raise ConfigError(f"{unknown_name_message('option', name, known)}.")
    return SamplingParams(**defaults | {k: v for k, v in options.items() if v is not None})
