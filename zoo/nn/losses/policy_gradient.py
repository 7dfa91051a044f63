"""Policy-gradient terms: group advantages, PPO clipping, a KL estimator."""

import torch
from torch import Tensor


def group_advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, G) of G answers to the same prompt, less their mean, over their standard deviation (Shao et al. 2024,
    2402.03300, section 4.1.2); exactly zero where all are equal, as nothing is to be learned from them.
    """
    low, high = rewards.amin(1, keepdim=True), rewards.amax(1, keepdim=True)
    centred = rewards - rewards.mean(1, keepdim=True)
    return torch.where(high > low, centred / (rewards.std(1, keepdim=True, correction=1) + 1e-4), 0.0)


def ppo_clip(new: Tensor, old: Tensor, advantage: Tensor, epsilon: float) -> Tensor:
    """min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) of every token, r = exp(new - old) (PPO, Schulman et al. 2017,
    1707.06347, eq. 7): a token that has moved far enough in the direction of its advantage has no gradient.

    Args:
        new: log-probabilities (N, T) of the tokens under the policy.
        old: the same when the tokens were drawn.
        advantage: (N,).
        epsilon: how far a ratio counts.
    """
    ratio, worth = (new - old).exp(), advantage[:, None]
    return torch.minimum(ratio * worth, ratio.clamp(1 - epsilon, 1 + epsilon) * worth)


def kl_estimator_k3(new: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) from each token drawn, unbiased and never negative: r - 1 - log r,
    r = reference / policy (2402.03300, eq. 4).
    """
    log_ratio = reference - new
    return log_ratio.exp() - 1 - log_ratio


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over rows of the mean over the tokens of each, (N, T) and their mask: every answer counts the same."""
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
