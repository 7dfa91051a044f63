"""PPO: advantages equal brute force, the surrogate equals its formula over every token, and a bandit is solved."""

import itertools
import math
from typing import Any

import pytest
import torch

from tests.models.finetuning.test_dpo import fitted, log_prob, stage, texts
from zoo.nn.losses.policy_gradient import gae


def advantages(r: list[float], v: list[float], gamma: float, lam: float) -> list[float]:
    """The sum of equation 16, written out for one answer."""
    n = len(r)
    delta = [r[t] + gamma * (v[t + 1] if t + 1 < n else 0.0) - v[t] for t in range(n)]
    return [sum((gamma * lam) ** k * delta[t + k] for k in range(n - t)) for t in range(n)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.9, 1.0), (0.8, 0.0)])
def test_advantages_are_their_sums(gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(4, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    spans = [(0, 7), (2, 5), (3, 4), (1, 7)]  # of the answers
    mask = torch.tensor([[a <= t < b for t in range(7)] for a, b in spans])
    found = gae(rewards * mask, values, mask, gamma, lam)
    for row, (a, b) in enumerate(spans):
        r, v = rewards[row, a:b].tolist(), values[row, a:b].tolist()
        assert found[row, a:b].tolist() == pytest.approx(advantages(r, v, gamma, lam))
        if lam == 1:
            later = [sum(gamma**k * r[t + k] for k in range(b - a - t)) - v[t] for t in range(b - a)]
            assert found[row, a:b].tolist() == pytest.approx(later), "the observed return, less the value"
    assert not found[~mask].any()
    unmasked = gae(rewards * mask, values, torch.ones_like(mask), gamma, lam)
    if lam < 1:
        assert not torch.allclose(unmasked[mask], found[mask]), "the control: values after the end"


def test_values_that_are_right_give_no_advantage_on_average() -> None:
    """Two coins, with the reward of both heads: expectations by enumeration."""
    value = {(): 0.25, (0,): 0.0, (1,): 0.5}
    total = torch.zeros(2, dtype=torch.float64)
    for coins in itertools.product((0, 1), repeat=2):
        r = torch.tensor([[0.0, float(all(coins))]], dtype=torch.float64)
        v = torch.tensor([[value[()], value[coins[:1]]]], dtype=torch.float64)
        total += gae(r, v, torch.ones(1, 2, dtype=torch.bool), 1.0, 0.7)[0] / 4
    assert total.abs().max() < 1e-12


@pytest.mark.parametrize(("beta", "rank"), [(0.0, 0), (0.3, 0), (0.3, 3)])
def test_the_surrogate_is_the_formula_over_every_token(beta: float, rank: int) -> None:
    model: Any = stage("ppo", beta=beta, lora_rank=rank, reward="similar", clip_range=0.1, value_weight=0.7)
    torch.nn.init.normal_(model.value_head.weight)
    start = [p.detach().clone() for p in model.policy.parameters()]
    with torch.no_grad():  # the policy is not its reference any more
        for p in model.policy.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
    batch = texts("ab c e f", "cd hg a bb")
    made, n = model.rollout(batch), 4
    with torch.no_grad():
        old = [log_prob(model, made.x[i], made.y[i]).tolist() for i in range(n)]
        v = [[float(model.value_head(model.net.hidden_states(made.x[i : i + 1]))[0, t]) for t in range(made.x.shape[1])
              if made.y[i, t] >= 0] for i in range(n)]  # fmt: skip
        now = [p.detach().clone() for p in model.policy.parameters()]
        for p, q in zip(model.policy.parameters(), start, strict=True):
            p.copy_(q)
        ref = [log_prob(model, made.x[i], made.y[i]).tolist() for i in range(n)]
        for p, q in zip(model.policy.parameters(), now, strict=True):
            p.copy_(q)
    raw, returns = [], []
    for i in range(n):
        r = [-beta * (a - b) for a, b in zip(old[i], ref[i], strict=True)]
        r[-1] += made.rewards[i].item()
        raw.append(advantages(r, v[i], 1.0, 0.95))
        returns.append([a + b for a, b in zip(raw[-1], v[i], strict=True)])
    flat = torch.tensor([a for row in raw for a in row], dtype=torch.float64)
    with torch.no_grad():
        for p in model.policy.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
        new = [log_prob(model, made.x[i], made.y[i]).tolist() for i in range(n)]
        hidden = [model.net.hidden_states(made.x[i : i + 1]) for i in range(n)]
        after = [[float(model.value_head(hidden[i])[0, t]) for t in range(made.x.shape[1])
                  if made.y[i, t] >= 0] for i in range(n)]  # fmt: skip
    gain = error = clipped = 0.0
    for i in range(n):
        for t, a in enumerate(raw[i]):
            a = (a - flat.mean().item()) / flat.std(correction=0).item()
            ratio = math.exp(new[i][t] - old[i][t])
            clipped += abs(ratio - 1) > 0.1
            gain += min(ratio * a, min(max(ratio, 0.9), 1.1) * a) / len(flat)
            error += (after[i][t] - returns[i][t]) ** 2 / 2 / len(flat)
    assert clipped
    assert model.surrogate(made)["loss"].item() == pytest.approx(0.7 * error - gain, rel=1e-3, abs=1e-5)


def test_a_bandit_is_solved_and_its_value_known() -> None:
    """For each of four prompts one letter of eight is right. The values become the rewards of the final policy."""
    batch = texts("a b c d " * 8, "h g f e " * 8)
    model: Any = stage("ppo", max_new_tokens=1, beta=0.0, optimizer={"lr": 0.01, "warmup": 0}, value_weight=0.5)
    for p in model.policy.parameters():
        p.data.mul_(0.3)  # no letter is likely at first
    x, y = batch
    torch.manual_seed(1)
    trainer = fitted(model, batch, 40)
    with torch.no_grad():
        right = model.net(x)[:, 1].softmax(-1)[torch.arange(len(x)), y[:, 1]]
        _, values = model.evaluate(x, y)
    assert right.min() > 0.9, right
    assert values[:, 1].min() > 0.7
    assert trainer.global_step == 160, "updates are optimizer steps"


def test_the_penalty_keeps_the_policy_near_its_reference() -> None:
    """At the optimum, pi is proportional to ref exp(r / beta): a large beta leaves the reference."""
    found = []
    for beta in (0.0, 5.0):
        batch = texts("a b c d " * 4, "h g f e " * 4)
        model: Any = stage("ppo", max_new_tokens=1, beta=beta, optimizer={"lr": 0.02, "warmup": 0})
        torch.manual_seed(1)
        fitted(model, batch, 25)
        with torch.no_grad():
            x, _ = batch
            p = model.net(x)[:, 1].log_softmax(-1)
            q = model.reference.net(x)[:, 1].log_softmax(-1) if beta else stage("ppo").net(x)[:, 1].log_softmax(-1)
            found.append(float((p.exp() * (p - q)).sum(-1).mean()))
    assert found[1] < 0.2 * found[0]
