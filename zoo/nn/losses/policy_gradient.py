"""Policy-gradient terms: group advantages, PPO clipping, a KL estimator."""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["standardised", "mean", "leave_one_out"]


def group_advantages(rewards: Tensor, baseline: Baseline = "standardised") -> Tensor:
    """Rewards less a baseline from each group of answers to one prompt, (B, G) -> (B, G); 0 where all are equal.

    - "standardised": (r - mean) / (std + 1e-4) (GRPO, Shao et al. 2024, 2402.03300, section 4.1.2).
    - "mean": r - mean. Prompts whose answers are nearly all right or wrong have no larger weight (Dr. GRPO, Liu et al.
      2025, 2503.20783, section 3.2).
    - "leave_one_out": r less the mean of the others, an unbiased gradient (RLOO, Ahmadian et al. 2024, 2402.14740,
      equation 10).
    """
    low, high = rewards.amin(1, keepdim=True), rewards.amax(1, keepdim=True)
    centred = rewards - rewards.mean(1, keepdim=True)
    if baseline == "standardised":
        centred = centred / (rewards.std(1, keepdim=True, correction=1) + 1e-4)
    elif baseline == "leave_one_out":
        centred = centred * (rewards.shape[1] / (rewards.shape[1] - 1))
    return torch.where(high > low, centred, 0.0)


def ppo_clip(new: Tensor, old: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """Clipped surrogate objective per token (PPO, Schulman et al. 2017, 1707.06347, eq. 7), (N, T), to be maximised.

    min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) with r = exp(new - old). A token whose ratio is clipped has zero
    gradient.

    Args:
        new: log-probabilities (N, T) of the tokens under the policy.
        old: log-probabilities (N, T) under the policy that sampled them.
        advantage: (N,) of whole answers, or (N, T).
        clip_range: epsilon.
    """
    ratio, advantage = (new - old).exp(), advantage if advantage.ndim == 2 else advantage[:, None]
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates (N, T) of each token (Schulman et al. 2016, 1506.02438, equation 16).

    A_t = delta_t + gamma lam A_{t+1} with delta_t = r_t + gamma V_{t+1} - V_t; after the last token all are zero.

    Args:
        rewards: r (N, T), received after each token.
        values: V (N, T), expected before each token.
        mask: tokens of the answers (N, T), adjacent in each row.
        gamma: discount of later rewards.
        lam: 0 trusts the values, and 1 the observed rewards.
    """
    ahead = advantage = torch.zeros_like(values[:, 0])  # V and A of the next token
    found = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * ahead - values[:, t]
        advantage = (delta + gamma * lam * advantage) * mask[:, t]
        ahead = values[:, t] * mask[:, t]
        found.append(advantage)
    return torch.stack(found[::-1], 1)


def kl_estimator_k3(new: Tensor, reference: Tensor) -> Tensor:
    """Unbiased, non-negative estimate of KL(policy || reference) per sampled token, nats (N, T).

    r - 1 - log r with r = reference / policy (2402.03300, eq. 4).
    """
    log_ratio = reference - new
    return log_ratio.exp() - 1 - log_ratio


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of each row's mean over unmasked tokens, (N, T) -> scalar: every answer has equal weight."""
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def masked_sum(values: Tensor, mask: Tensor, length: int) -> Tensor:
    """Mean over rows of each row's sum over unmasked tokens, divided by a constant: every token has equal weight."""
    return (values * mask).sum(1).mean() / length
