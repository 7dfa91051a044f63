"""Preference losses: DPO."""

from torch import Tensor
from torch.nn import functional as F


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """DPO loss: -log sigmoid of the difference of two rewards (Rafailov et al. 2023, 2305.18290, eq. 7).

    Args:
        policy: log-probabilities (B, 2) of the chosen and the rejected answer, in nats.
        reference: log-probabilities (B, 2) under the frozen reference model.
        beta: nats of reward per nat of log-probability.

    Returns:
        The loss (B,), ln 2 where policy and reference agree; and the rewards beta (policy - reference), (B, 2).
    """
    rewards = beta * (policy - reference)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()
