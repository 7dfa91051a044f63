"""Objectives that compare a language model with itself as it was: preferences, and rewards in a group."""

import torch
from torch import Tensor
from torch.nn import functional as F


def preference_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Direct preference optimisation: -log sigmoid of the difference (Rafailov et al. 2023, 2305.18290, eq. 7) of
    the rewards of two answers.

    Args:
        policy: log-probabilities (B, 2) of the chosen and of the rejected answer, in nats.
        reference: the same under the model as it was.
        beta: nats of reward per nat of log-probability.

    Returns:
        The loss (B,), ln 2 where policy and reference agree; and the rewards beta (policy - reference), (B, 2).
    """
    rewards = beta * (policy - reference)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, G) of G answers to the same prompt, less their mean, over their standard deviation (Shao et al. 2024,
    2402.03300, section 4.1.2); exactly zero where all are equal, as nothing is to be learned from them.
    """
    low, high = rewards.amin(1, keepdim=True), rewards.amax(1, keepdim=True)
    centred = rewards - rewards.mean(1, keepdim=True)
    return torch.where(high > low, centred / (rewards.std(1, keepdim=True, correction=1) + 1e-4), 0.0)


def clipped(new: Tensor, old: Tensor, advantage: Tensor, epsilon: float) -> Tensor:
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


def divergence(new: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) from each token drawn, unbiased and never negative: r - 1 - log r,
    r = reference / policy (2402.03300, eq. 4).
    """
    log_ratio = reference - new
    return log_ratio.exp() - 1 - log_ratio


def mean_of_means(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over rows of the mean over the tokens of each, (N, T) and their mask: every answer counts the same."""
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
