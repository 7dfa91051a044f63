"""Objectives that compare a language model with itself as it was: preferences, and rewards in a group."""

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
