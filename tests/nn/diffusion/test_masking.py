"""The counted bound of masked diffusion: its four identities by enumeration, and its estimator."""

import itertools
import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss

from tests.nn.diffusion.joint import (
    LENGTH,
    STATES,
    chain_rule,
    conditionals,
    cross_entropies,
    random_joint,
    random_network,
    subsets,
)
from zoo.nn.diffusion.masking import choose_hidden, counted_bound, draw_counts, masked_share, ratio_of_share

ORDERS = list(itertools.permutations(range(LENGTH)))


def enumerated_bound(predict, weight=lambda m: 1 / m):
    """Sum over m of (1 / m) E_{|M| = m} of the cross-entropy, for all states (S,)."""
    total = torch.zeros(len(STATES), dtype=torch.float64)
    for hidden in subsets():
        m = int(hidden.sum())
        total += weight(m) / math.comb(LENGTH, m) * cross_entropies(predict, STATES, hidden).sum(1)
    return total


def test_with_exact_conditionals_the_bound_is_the_log_probability():
    joint = random_joint()
    predict = conditionals(joint)
    assert torch.allclose(enumerated_bound(predict), -joint.log(), atol=1e-12, rtol=0)
    assert not torch.allclose(enumerated_bound(predict, lambda m: 1 / LENGTH), -joint.log(), atol=0.1, rtol=0)


def test_the_bound_is_the_integral_over_time():
    """int_0^1 (1 / t) E[cross-entropy of tokens hidden with probability t] dt; a polynomial, so that Gauss is exact."""
    predict, total = random_network(), torch.zeros(len(STATES), dtype=torch.float64)
    nodes, weights = leggauss(LENGTH)
    for t, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        for hidden in subsets():
            m = int(hidden.sum())
            total += w / t * t**m * (1 - t) ** (LENGTH - m) * cross_entropies(predict, STATES, hidden).sum(1)
    assert torch.allclose(enumerated_bound(predict), total, atol=1e-12, rtol=0)


def test_the_bound_is_the_mean_over_all_orders_and_above_the_sampler():
    """With one token a step the sampler's probabilities sum to one, and the bound is above their negative logarithm."""
    predict = random_network()
    chains = torch.stack([chain_rule(predict, STATES, order) for order in ORDERS])
    bound = enumerated_bound(predict)
    assert torch.allclose(bound, chains.mean(0), atol=1e-12, rtol=0)
    law = (-chains).exp().mean(0)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    gap = bound + law.log()
    assert gap.min() > 0.001
    exact = conditionals(random_joint())
    assert not torch.allclose(enumerated_bound(exact), chains.mean(0), atol=0.1, rtol=0)


def test_the_estimator_has_the_bound_as_its_mean():
    """The code that training runs, over all numbers of hidden tokens and all orders of the noise."""
    predict, n = random_network(), len(STATES)
    allowed = torch.ones(n, LENGTH, dtype=torch.bool)
    lengths = allowed.sum(1)
    total, unweighted = torch.zeros(2, n, dtype=torch.float64)
    for index in range(LENGTH):
        counts = draw_counts(lengths, torch.full((n,), (index + 0.5) / LENGTH))
        assert (counts == index + 1).all()
        for order in ORDERS:
            hidden = choose_hidden(allowed, counts, torch.tensor(order).expand(n, -1) / LENGTH)
            assert torch.equal(hidden.sum(1), counts)
            nats = cross_entropies(predict, STATES, hidden)
            total += counted_bound(nats, lengths, counts).sum(1) / (LENGTH * len(ORDERS))
            unweighted += nats.sum(1) / (LENGTH * len(ORDERS))
    assert torch.allclose(total, enumerated_bound(predict), atol=1e-12, rtol=0)
    assert not torch.allclose(unweighted, total, atol=0.1, rtol=0)


def test_only_allowed_tokens_are_hidden_as_many_as_asked():
    allowed = torch.tensor([[True, False, True, True], [False, False, True, False], [False] * 4])
    lengths = allowed.sum(1)
    counts = draw_counts(lengths, torch.tensor([0.999999, 0.5, 0.5]))
    assert counts.tolist() == [3, 1, 1]
    hidden = choose_hidden(allowed, counts, torch.rand(3, 4))
    assert torch.equal(hidden, allowed)
    nats = counted_bound(torch.zeros(3, 4), lengths, counts)
    assert torch.isfinite(nats).all()


def test_maskgit_hides_as_many_as_its_schedule():
    """ceil(cos(pi u / 2) L): mostly many, from Chang et al. 2022, section 3.1."""
    lengths, u = torch.full((5,), 64), torch.tensor([0.0, 0.25, 0.5, 0.75, 0.9999])
    assert draw_counts(lengths, u, "cosine").tolist() == [math.ceil(64 * math.cos(math.pi / 2 * v)) for v in u.tolist()]
    assert draw_counts(lengths, u).tolist() == [1, 17, 33, 49, 64]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_begin_with_all_masks_and_end_with_none(schedule):
    ratio = torch.linspace(0, 1, 11, dtype=torch.float64)
    share = masked_share(ratio, schedule)
    assert share[0] == 1
    assert abs(share[-1]) < 1e-15
    assert (share.diff() < 0).all()
    assert torch.allclose(ratio_of_share(share.clamp(min=0), schedule), ratio, atol=1e-12)
