"""Scaling of rotary angles to contexts longer than those of pre-training, as in the `transformers` library.

Each function takes the angles per position (D / 2,) and their base theta. It returns new angles, and a factor on
queries and keys. `longrope` returns angles (2, D / 2) of short and long texts, and the length of the longest short one.
"""

import math
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, NonNegative, Positive, PositiveInt

RopeScaling = Annotated[str | dict[str, Any], Component("rope_scaling")]
Factor = Annotated[float, Ge(1.0)]


@register("rope_scaling", "none")
def none(rates: Tensor, theta: float) -> tuple[Tensor, float]:
    """No scaling."""
    return rates, 1.0


@register("rope_scaling", "linear")
def linear(rates: Tensor, theta: float, *, factor: Factor = 2.0) -> tuple[Tensor, float]:
    """All angles divided by a factor (Chen et al. 2023, arXiv:2306.15595).

    Args:
        rates: angles per position.
        theta: base of the angles.
        factor: new over old context.
    """
    return rates / factor, 1.0


@register("rope_scaling", "llama3")
def llama3(
    rates: Tensor,
    theta: float,
    *,
    factor: Factor = 8.0,
    low_freq_factor: Positive = 1.0,
    high_freq_factor: Positive = 4.0,
    original_context: PositiveInt = 8192,
) -> tuple[Tensor, float]:
    """Slow angles divided by a factor, fast ones kept, and interpolation between them (Llama 3.1, arXiv:2407.21783).

    Args:
        rates: angles per position.
        theta: base of the angles.
        factor: divides the slow angles.
        low_freq_factor: angles of fewer turns in the original context are slow.
        high_freq_factor: angles of more turns in the original context are fast.
        original_context: positions of pre-training.
    """
    turns = original_context * rates / (2 * math.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return (1 - kept) * rates / factor + kept * rates, 1.0


@register("rope_scaling", "yarn")
def yarn(
    rates: Tensor,
    theta: float,
    *,
    factor: Factor = 4.0,
    original_context: PositiveInt = 4096,
    beta_fast: Positive = 32.0,
    beta_slow: Positive = 1.0,
    attention_factor: NonNegative = 0.0,
    truncate: bool = True,
) -> tuple[Tensor, float]:
    """YaRN: slow angles divided by a factor, fast ones kept, with a ramp by index (Peng et al. 2023, arXiv:2309.00071).

    Args:
        rates: angles per position.
        theta: base of the angles.
        factor: divides the slow angles.
        original_context: positions of pre-training.
        beta_fast: turns in the original context at which the ramp begins.
        beta_slow: turns in the original context at which the ramp ends.
        attention_factor: factor on queries and keys; 0 is 0.1 ln(factor) + 1.
        truncate: round the ends of the ramp outwards.
    """
    half = len(rates)

    def index(turns: float) -> float:
        return half * math.log(original_context / (turns * 2 * math.pi)) / math.log(theta)

    low, high = index(beta_fast), index(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    high = high + 0.001 if low == high else high
    slow = ((torch.arange(half, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return rates / factor * slow + rates * (1 - slow), attention_factor or 0.1 * math.log(factor) + 1.0


@register("rope_scaling", "longrope")
def longrope(
    rates: Tensor,
    theta: float,
    *,
    short_factor: list[float] | None = None,
    long_factor: list[float] | None = None,
    factor: Factor = 4.0,
    original_context: PositiveInt = 4096,
    attention_factor: NonNegative = 0.0,
) -> tuple[Tensor, float, int]:
    """LongRoPE: each angle divided by its own factor, other ones in long texts (Ding et al. 2024, arXiv:2402.13753).

    A text of more than `original_context` tokens has the long factors at all its positions.

    Args:
        rates: angles per position.
        theta: base of the angles.
        short_factor: divides each angle of short texts; None divides none.
        long_factor: divides each angle of long texts; None divides all by `factor`.
        factor: new over old context.
        original_context: positions of pre-training.
        attention_factor: factor on queries and keys; 0 is sqrt(1 + ln(factor) / ln(original_context)).

    Raises:
        ConfigError: another number of factors than of angles, or one that is not positive.
    """
    pair = {"short_factor": short_factor or [1.0] * len(rates), "long_factor": long_factor or [factor] * len(rates)}
    for name, given in pair.items():
        if len(given) != len(rates) or min(given) <= 0:
            raise ConfigError(f"{name}={given}: not factors of {len(rates)} angles. Give as many, all above 0.")
    usual = math.sqrt(1 + math.log(factor) / math.log(original_context)) if original_context > 1 else 1.0
    both = torch.stack([rates / rates.new_tensor(given) for given in pair.values()])  # (2, D / 2)
    return both, attention_factor or usual, original_context
