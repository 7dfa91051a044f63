"""Preference losses over pairs of answers: DPO and its relatives."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

PreferenceLoss = Literal["sigmoid", "hinge", "ipo", "simpo", "orpo"]
WITH_REFERENCE = ("sigmoid", "hinge", "ipo")


def preference_loss(
    kind: PreferenceLoss,
    policy: Tensor,
    reference: Tensor | None,
    lengths: Tensor,
    beta: float,
    *,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Loss (B,) of pairs of answers, and their rewards (B, 2).

    With a reference, the reward of an answer is r = beta (log pi - log ref). Of a pair, d is the difference of rewards,
    chosen less rejected:

    - "sigmoid": -log sigmoid(d) (DPO, Rafailov et al. 2023, 2305.18290, equation 7). If labels are swapped with
      probability e, the smoothing: -(1 - e) log sigmoid(d) - e log sigmoid(-d).
    - "hinge": max(0, 1 - d) (SLiC-HF, Zhao et al. 2023, 2305.10425, over these rewards).
    - "ipo": (d / beta - 1 / (2 beta))^2, whose optimum is a finite ratio (Azar et al. 2023, 2310.12036, equation 17).

    Without one, answers are compared by their mean log-probability m per token:

    - "simpo": -log sigmoid(d - margin), with the reward r = beta m (Meng et al. 2024, 2405.14734, equation 6).
    - "orpo": -beta log sigmoid of the difference of log-odds m - log(1 - exp(m)) (Hong et al. 2024, 2403.07691,
      equations 6 and 7). The paper adds the nats per token of the chosen answer. The reward is r = beta m.

    Args:
        kind: see above.
        policy: log-probabilities (B, 2) of the chosen and the rejected answer, in nats.
        reference: log-probabilities (B, 2) under the frozen reference model, where `kind` has one.
        lengths: numbers of tokens (B, 2).
        beta: nats of reward per nat of log-probability.
        label_smoothing: of "sigmoid".
        margin: of "simpo".
    """
    if kind in WITH_REFERENCE:
        assert reference is not None
        rewards = beta * (policy - reference)
        apart = rewards[:, 0] - rewards[:, 1]
        if kind == "hinge":
            loss = F.relu(1 - apart)
        elif kind == "ipo":
            loss = (apart / beta - 1 / (2 * beta)).square()
        else:
            loss = -(1 - label_smoothing) * F.logsigmoid(apart) - label_smoothing * F.logsigmoid(-apart)
        return loss, rewards.detach()
    mean = policy / lengths.clamp(min=1)
    rewards = beta * mean
    if kind == "simpo":
        loss = -F.logsigmoid(rewards[:, 0] - rewards[:, 1] - margin)
    else:
        odds = mean - torch.log(-torch.expm1(mean.clamp(max=-1e-6)))  # certain answers have infinite odds
        loss = -beta * F.logsigmoid(odds[:, 0] - odds[:, 1])
    return loss, rewards.detach()


def kto_loss(
    ratio: Tensor, kl: Tensor, desirable: Tensor, beta: float, *, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Loss (N,) of single answers with a label (KTO, Ethayarajh et al. 2024, 2402.01306, equation 8).

    w (1 - sigmoid(beta (ratio - kl))) of a desirable answer, and w (1 - sigmoid(beta (kl - ratio))) of an undesirable
    one. The reference point `kl` must not have a gradient.

    Args:
        ratio: log pi - log ref (N,) of the answers, in nats.
        kl: estimate of KL(pi || ref), non-negative, scalar.
        desirable: labels (N,).
        beta: nats of reward per nat of log-probability.
        weights: w of the desirable and of the undesirable answers.
    """
    good = desirable.to(ratio.dtype)
    sign, weight = 2 * good - 1, good * weights[0] + (1 - good) * weights[1]
    return weight * torch.sigmoid(-beta * sign * (ratio - kl))


def bradley_terry_loss(rewards: Tensor) -> Tensor:
    """Nats (B,) of preferences: -log sigmoid of the difference of rewards (B, 2), the chosen answer first.

    Bradley & Terry 1952; Ouyang et al. 2022, 2203.02155, equation 1.
    """
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1])
