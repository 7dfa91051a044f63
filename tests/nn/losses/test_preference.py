"""Objectives over log-probabilities, against the formulas of the papers written out."""

import math

import numpy as np
import pytest
import torch

from zoo.nn.losses.policy_gradient import group_advantages, kl_estimator_k3, masked_mean, ppo_clip
from zoo.nn.losses.preference import dpo_loss


def test_a_policy_that_is_its_reference_has_the_loss_ln_2() -> None:
    same = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 30
    loss, rewards = dpo_loss(same, same, 0.3)
    torch.testing.assert_close(loss, torch.full((5,), math.log(2)), atol=1e-6, rtol=0)
    assert not rewards.any()


def test_the_preference_loss_is_the_formula() -> None:
    """-log sigmoid(beta ((pi_w - pi_l) - (ref_w - ref_l))), as trl has it, in double precision."""
    torch.manual_seed(0)
    policy, reference, beta = torch.randn(6, 2).double() * 4, torch.randn(6, 2).double() * 4, 0.7
    policy.requires_grad_()
    loss, rewards = dpo_loss(policy, reference, beta)
    for row in range(6):
        (pw, pl), (rw, rl) = policy[row].tolist(), reference[row].tolist()
        assert loss[row].item() == pytest.approx(math.log(1 + math.exp(-beta * ((pw - pl) - (rw - rl)))), rel=1e-9)
        assert rewards[row].tolist() == pytest.approx([beta * (pw - rw), beta * (pl - rl)])
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert (gradient[:, 0] < 0).all(), "the chosen answer becomes likelier"
    torch.testing.assert_close(gradient[:, 0], -gradient[:, 1])
    wrong = torch.sigmoid(rewards[:, 1] - rewards[:, 0])  # eq. 7's weight: how wrong the rewards are
    torch.testing.assert_close(gradient[:, 1], beta * wrong)


def test_advantages_are_rewards_in_units_of_their_group() -> None:
    rewards = torch.tensor([[0.0, 1.0, 1.0, 0.5], [2.0, 2.0, 7.0, 2.0]])
    found = group_advantages(rewards)
    for row in range(2):
        r = np.array(rewards[row].tolist())
        np.testing.assert_allclose(found[row].numpy(), (r - r.mean()) / (r.std(ddof=1) + 1e-4), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.3])
def test_equal_rewards_have_no_advantage_at_all(value: float) -> None:
    assert not group_advantages(torch.full((3, 7), value)).any(), "not even a rounding error"


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.2),
        (1.5, 2.0, 2.4, 0.0),  # far enough already
        (0.5, 2.0, 1.0, 1.0),
        (1.5, -2.0, -3.0, -3.0),
        (0.5, -2.0, -1.6, 0.0),
    ],
)
def test_a_clipped_ratio_by_hand(ratio: float, advantage: float, value: float, slope: float) -> None:
    """epsilon = 0.2; the slope in log-probability is ratio x advantage, or nothing."""
    old = torch.tensor([[-3.0]], dtype=torch.double)
    new = (old + math.log(ratio)).requires_grad_()
    gain = ppo_clip(new, old, torch.tensor([advantage], dtype=torch.double), 0.2)
    assert gain.item() == pytest.approx(value)
    gain.backward()
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(slope)


def test_the_divergence_is_unbiased_and_never_negative() -> None:
    """Its expectation under the policy, over all tokens, is the divergence itself."""
    torch.manual_seed(0)
    policy, reference = (torch.randn(9).double().log_softmax(0) for _ in range(2))
    each = kl_estimator_k3(policy, reference)
    assert (each >= 0).all()
    assert (policy.exp() * each).sum().item() == pytest.approx((policy.exp() * (policy - reference)).sum().item())
    assert not kl_estimator_k3(policy, policy).any()


def test_every_row_counts_the_same_however_long() -> None:
    values = torch.tensor([[1.0, 5.0, 100.0], [3.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    assert masked_mean(values, mask).item() == pytest.approx((3 + 3 + 0) / 3)
