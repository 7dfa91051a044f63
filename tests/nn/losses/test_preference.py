"""Objectives over log-probabilities, against the formulas of the papers written out."""

import itertools
import math

import numpy as np
import pytest
import torch

from zoo.nn.losses.policy_gradient import group_advantages, kl_estimator_k3, masked_mean, masked_sum, ppo_clip
from zoo.nn.losses.preference import kto_loss, preference_loss

ONES = torch.ones(1, 2)  # lengths


def test_a_policy_that_is_its_reference_has_the_loss_ln_2() -> None:
    same = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 30
    loss, rewards = preference_loss("sigmoid", same, same, ONES, 0.3)
    torch.testing.assert_close(loss, torch.full((5,), math.log(2)), atol=1e-6, rtol=0)
    assert not rewards.any()


def test_the_preference_loss_is_the_formula() -> None:
    """-log sigmoid(beta ((pi_w - pi_l) - (ref_w - ref_l))), as trl has it, in double precision."""
    torch.manual_seed(0)
    policy, reference, beta = torch.randn(6, 2).double() * 4, torch.randn(6, 2).double() * 4, 0.7
    policy.requires_grad_()
    loss, rewards = preference_loss("sigmoid", policy, reference, ONES, beta)
    for row in range(6):
        (pw, pl), (rw, rl) = policy[row].tolist(), reference[row].tolist()
        assert loss[row].item() == pytest.approx(math.log(1 + math.exp(-beta * ((pw - pl) - (rw - rl)))), rel=1e-9)
        assert rewards[row].tolist() == pytest.approx([beta * (pw - rw), beta * (pl - rl)])
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert (gradient[:, 0] < 0).all(), "the chosen answer becomes likelier"
    torch.testing.assert_close(gradient[:, 0], -gradient[:, 1])
    wrong = torch.sigmoid(rewards[:, 1] - rewards[:, 0])  # eq. 7's weight: how wrong the rewards are
    torch.testing.assert_close(gradient[:, 1], beta * wrong)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_relatives_of_dpo_are_their_formulas() -> None:
    """Written out for each pair in single numbers."""
    torch.manual_seed(1)
    policy, reference = -5 * torch.rand(6, 2).double() - 0.1, -5 * torch.rand(6, 2).double()
    lengths = torch.tensor([[3, 5], [1, 1], [7, 2], [2, 2], [4, 9], [6, 1]])
    beta, wanted = 0.7, {name: list[float]() for name in ("hinge", "ipo", "simpo", "orpo", "smoothed")}
    for (pw, pl), (rw, rl), (nw, nl) in zip(policy.tolist(), reference.tolist(), lengths.tolist(), strict=True):
        ratio = (pw - rw) - (pl - rl)
        wanted["hinge"].append(max(0.0, 1 - beta * ratio))
        wanted["ipo"].append((ratio - 1 / (2 * beta)) ** 2)
        wanted["simpo"].append(-math.log(sigmoid(beta * (pw / nw - pl / nl) - 0.4)))
        odds = [math.exp(p / n) / (1 - math.exp(p / n)) for p, n in ((pw, nw), (pl, nl))]
        wanted["orpo"].append(-beta * math.log(sigmoid(math.log(odds[0] / odds[1]))))
        wanted["smoothed"].append(-0.9 * math.log(sigmoid(beta * ratio)) - 0.1 * math.log(sigmoid(-beta * ratio)))
    for name, values in wanted.items():
        kind, smooth = ("sigmoid", 0.1) if name == "smoothed" else (name, 0.0)
        given = None if name in ("simpo", "orpo") else reference
        options = {"label_smoothing": smooth, "margin": 0.4}
        found = preference_loss(kind, policy, given, lengths, beta, **options)[0]  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx(values, rel=1e-9), name
        other = preference_loss(kind, policy.flip(1), given, lengths.flip(1), beta, **options)[0]  # type: ignore[arg-type]
        assert other.tolist() != pytest.approx(values, rel=1e-3), "the control: answers swapped"


@pytest.mark.parametrize(
    ("kind", "options", "optimum"),
    [("ipo", {}, 1 / (2 * 0.5)), ("sigmoid", {"label_smoothing": 0.2}, math.log(0.8 / 0.2) / 0.5)],
)
def test_the_optimum_is_a_finite_ratio(kind, options, optimum) -> None:
    """IPO: a ratio of 1 / (2 beta). Swapped labels: sigmoid of the reward difference is their probability."""
    ratio = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([ratio], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        policy = torch.stack([ratio, torch.zeros(())])[None]
        loss = preference_loss(kind, policy, torch.zeros(1, 2), ONES, 0.5, **options)[0].sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert ratio.item() == pytest.approx(optimum, rel=1e-3)
    plain = preference_loss("sigmoid", torch.tensor([[30.0, 0.0]]), torch.zeros(1, 2), ONES, 0.5)[0]
    assert plain.item() < 1e-6, "the control: DPO itself has its optimum at infinity"


def test_the_loss_of_labelled_answers_is_the_formula() -> None:
    """Equation 8 of KTO and its derivative, written out; answers with the other label have another loss."""
    torch.manual_seed(2)
    ratio, good = 3 * torch.randn(8).double().requires_grad_(), torch.tensor([True, False] * 4)
    kl, beta, weights = torch.tensor(0.6, dtype=torch.float64), 0.4, (1.3, 0.7)
    loss = kto_loss(ratio, kl, good, beta, weights=weights)
    (slope,) = torch.autograd.grad(loss.sum(), ratio)
    for r, g, found, d in zip(ratio.tolist(), good.tolist(), loss.tolist(), slope.tolist(), strict=True):
        value = sigmoid(beta * (r - 0.6)) if g else sigmoid(beta * (0.6 - r))
        weight = weights[0] if g else weights[1]
        assert found == pytest.approx(weight * (1 - value), rel=1e-9)
        assert d == pytest.approx((-1 if g else 1) * weight * beta * value * (1 - value), rel=1e-9)
    swapped = kto_loss(ratio, kl, ~good, beta, weights=weights)
    assert not torch.allclose(swapped, loss, rtol=1e-2), "the control: labels swapped"
    assert kto_loss(torch.tensor([50.0, -50.0]), kl.float(), torch.tensor([True, False]), 1.0).max() < 1e-6


def test_a_certain_answer_has_finite_odds() -> None:
    policy = torch.tensor([[0.0, -3.0]], requires_grad=True)
    loss = preference_loss("orpo", policy, None, ONES, 0.1)[0]
    loss.sum().backward()
    assert loss.isfinite().all()
    assert policy.grad is not None
    assert policy.grad.isfinite().all()


def test_baselines_of_a_group() -> None:
    rewards = torch.tensor([[0.0, 1.0, 1.0, 0.5], [2.0, 2.0, 2.0, 2.0]])
    assert torch.allclose(group_advantages(rewards, "mean")[0], torch.tensor([-0.625, 0.375, 0.375, -0.125]))
    one_out = [r - (2.5 - r) / 3 for r in (0.0, 1.0, 1.0, 0.5)]
    assert torch.allclose(group_advantages(rewards, "leave_one_out")[0], torch.tensor(one_out))
    for baseline in ("standardised", "mean", "leave_one_out"):
        assert not group_advantages(rewards, baseline)[1].any()  # type: ignore[arg-type]


def test_leaving_one_out_makes_the_gradient_unbiased() -> None:
    """By enumeration of all groups of 3 answers out of 3: the mean step is the gradient of the expected reward."""
    logits, reward = (
        torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64, requires_grad=True),
        torch.tensor([1.0, 0.2, 0.7]),
    )
    p = logits.softmax(0)
    (exact,) = torch.autograd.grad((p * reward).sum(), logits)
    scores = torch.stack([torch.autograd.grad(logits.log_softmax(0)[k], logits)[0] for k in range(3)])  # (3, 3)
    means = {}
    for baseline in ("leave_one_out", "mean", "standardised"):
        mean = torch.zeros(3, dtype=torch.float64)
        for group in itertools.product(range(3), repeat=3):
            advantages = group_advantages(reward[list(group)][None].double(), baseline)[0]  # type: ignore[arg-type]
            step = sum(a * scores[k] for a, k in zip(advantages, group, strict=True)) / 3
            mean += p[list(group)].prod().detach() * step
        means[baseline] = mean
    torch.testing.assert_close(means["leave_one_out"], exact)
    torch.testing.assert_close(means["mean"], exact * 2 / 3)  # its length only
    cosine = torch.cosine_similarity(means["standardised"], exact, dim=0).item()
    assert cosine < 0.999, "the control: dividing by the deviation changes the direction"


def test_a_sum_over_tokens_weighs_them_alike() -> None:
    values, mask = (
        torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]]),
        torch.tensor([[True, True, False], [True, False, False]]),
    )
    assert masked_sum(values, mask, 5).item() == pytest.approx((3 + 4) / 2 / 5)
    assert masked_mean(values, mask).item() == pytest.approx((1.5 + 4) / 2)


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
