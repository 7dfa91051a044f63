"""D3PM: transitions against matrices and Bayes' rule, and the bound by enumeration."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from tests.nn.diffusion.joint import (
    LENGTH,
    STATES,
    VOCAB,
    cross_entropies,
    random_network,
    subsets,
)
from zoo.nn.diffusion.transition import Absorbing, Uniform

K = VOCAB + 1  # with the mask token
ALL = torch.tensor(list(itertools.product(range(K), repeat=2)))  # noisy states of two tokens
PAIRS = ALL[(ALL < VOCAB).all(1)]  # clean ones
TRANSITIONS = [Absorbing(steps=8), Absorbing(steps=8, schedule="cosine"), Uniform(steps=8), Uniform(steps=2)]


def ids(transition):
    return f"{transition.registered_name}-{transition.steps}-{transition.schedule}"


def steps(t, n=1):
    return torch.full((n,), t)


def matrices(transition):
    """Q_t of each step (K, K), rows from: keep the token, or draw from pi."""
    a = transition.kept(torch.arange(transition.steps + 1))
    ratio = a[1:] / a[:-1]
    return [r * torch.eye(K).double() + (1 - r) * transition.limit(VOCAB).expand(K, K) for r in ratio]


def product(factors):
    found = torch.eye(K).double()
    for factor in factors:
        found = found @ factor
    return found


def states_of(transition):
    """Tokens that the transition reaches."""
    return [k for k in range(K) if transition.limit(VOCAB)[k] > 0 or k < VOCAB]


@pytest.mark.parametrize("transition", TRANSITIONS, ids=ids)
def test_noisy_tokens_have_the_law_of_the_matrices(transition):
    """On a grid of uniform numbers, so that frequencies are exact to the width of a cell."""
    each, n = matrices(transition), 400
    cell = (torch.arange(n).double() + 0.5) / n
    uniform = torch.stack([u.flatten() for u in torch.meshgrid(cell, cell, indexing="ij")])[:, None]  # (2, 1, n n)
    for t in range(1, transition.steps + 1):
        for x in range(VOCAB):
            rows = torch.full((1, n * n), x)
            drawn = transition.noisy(rows, steps(t), uniform, transition.limit(VOCAB))
            share = torch.bincount(drawn.flatten(), minlength=K).double() / n**2
            assert torch.allclose(share, product(each[:t])[x], atol=3 / n)
    assert torch.allclose(product(each)[0], transition.limit(VOCAB), atol=1e-12), "nothing is left at the last step"


@pytest.mark.parametrize("transition", TRANSITIONS, ids=ids)
def test_the_posterior_is_that_of_bayes(transition):
    """Of every noisy token, mixed over clean ones; also for several steps at once."""
    each, limit = matrices(transition), transition.limit(VOCAB)
    prior = F.pad(torch.rand(VOCAB, generator=torch.Generator().manual_seed(0)).double() + 0.1, (0, 1))
    prior /= prior.sum()
    for s, t in itertools.combinations(range(transition.steps + 1), 2):
        before, between, whole = product(each[:s]), product(each[s:t]), product(each[:t])
        for x_t in states_of(transition):
            possible = prior * (whole[:, x_t] > 0)
            if not possible.any():
                continue  # at the last step every token is masked
            weight = possible / possible.sum()
            want = torch.zeros(K, dtype=torch.float64)
            for x_0 in range(VOCAB):
                if weight[x_0]:
                    want += weight[x_0] * before[x_0] * between[:, x_t] / whole[x_0, x_t]
            got = transition.posterior(torch.tensor([[x_t]]), prior[None, None], steps(s), steps(t), limit)[0, 0]
            assert torch.allclose(got, want, atol=1e-12)
            assert float(got.sum()) == pytest.approx(1, abs=1e-12)


def laws(transition, network):
    """The law of clean pairs (9,) under the reverse chain, and the terms (T, 9) of the bound on their -log p.

    Args:
        transition: of the chain.
        network: noisy pairs (B, 2) and a step -> p(x_0), (B, 2, V).
    """
    limit, each = transition.limit(VOCAB), matrices(transition)
    inside = torch.tensor([k in states_of(transition) for k in range(K)])[ALL].all(1)
    p = limit[ALL].prod(1)
    terms = torch.zeros(transition.steps, len(PAIRS), dtype=torch.float64)
    for t in range(transition.steps, 0, -1):
        clean = F.pad(network(ALL, t), (0, 1))
        reverse = transition.posterior(ALL, clean, steps(t - 1), steps(t), limit)  # (16, 2, K)
        kernel = reverse[:, 0][:, ALL[:, 0]] * reverse[:, 1][:, ALL[:, 1]]
        p = (p * inside) @ kernel.nan_to_num()
        forward = product(each[:t])
        for index, x in enumerate(PAIRS):
            q = forward[x[0]][ALL[:, 0]] * forward[x[1]][ALL[:, 1]]
            term = transition.bound_term(x.expand(len(ALL), -1), ALL, clean, steps(t), limit).sum(1)
            terms[t - 1, index] = (q * term)[q > 0].sum()
    return p[(ALL < VOCAB).all(1)], terms


def network(seed, scale=1.0):
    """Arbitrary predictions for each noisy pair and step."""
    table = torch.randn(K * K, 32, 2, VOCAB, generator=torch.Generator().manual_seed(seed)).double() * scale
    return lambda x, t: table[x[:, 0] * K + x[:, 1], t].softmax(-1)


@pytest.mark.parametrize("transition", TRANSITIONS, ids=ids)
def test_the_mass_is_one_and_the_bound_holds_for_every_pair(transition):
    p, terms = laws(transition, network(3))
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert (terms.sum(0) + p.log() > 0).all()
    assert (terms >= 0).all()


class WithoutBayes(Uniform):
    """Equation 4 of the paper: the network's p(x_0) times q(x_t | x_0)."""

    def posterior(self, x_t, clean, s, t, limit):
        a_t = self.kept(t).to(clean)[:, None, None]
        likelihood = a_t * F.one_hot(x_t, K) + (1 - a_t) * limit[x_t][..., None]
        return super().posterior(x_t, F.normalize(clean * likelihood, p=1, dim=-1), s, t, limit)


@pytest.mark.parametrize("transition", TRANSITIONS, ids=ids)
def test_with_the_exact_denoiser_the_bound_is_the_log_probability(transition):
    """Of independent tokens, whose reverse steps are independent too: pointwise, as for Gaussians."""
    marginals = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], dtype=torch.float64)
    each = matrices(transition)

    def exact(x, t):
        joint = marginals[None] * product(each[:t])[:VOCAB, x].permute(1, 2, 0)  # (B, 2, V)
        return joint / joint.sum(-1, keepdim=True).clamp(min=1e-300)

    want = marginals[0][PAIRS[:, 0]] * marginals[1][PAIRS[:, 1]]
    p, terms = laws(transition, exact)
    assert torch.allclose(p, want, atol=1e-12)
    assert torch.allclose(terms.sum(0), -want.log(), atol=1e-10)
    assert ((terms[1:].sum(0) + want.log()) < -0.001).all(), "each step's term counts"
    if isinstance(transition, Uniform):
        wrong, _ = laws(WithoutBayes(steps=transition.steps), exact)
        assert not torch.allclose(wrong, want, atol=0.01)


def test_absorbing_steps_become_the_counted_bound():
    """The error of T steps against the bound in continuous time, which another module computes, falls as 1 / T."""
    predict = random_network()
    exact = torch.zeros(len(STATES), dtype=torch.float64)
    for hidden in subsets():
        m = int(hidden.sum())
        exact += cross_entropies(predict, STATES, hidden).sum(1) / m / len([s for s in subsets() if s.sum() == m])
    errors = []
    for total in (16, 32):
        transition, bound = Absorbing(steps=total), torch.zeros(len(STATES), dtype=torch.float64)
        limit = transition.limit(VOCAB)
        for t, hidden in itertools.product(range(1, total + 1), subsets()):
            x_t, m = STATES.masked_fill(hidden, VOCAB), int(hidden.sum())
            clean = F.pad(predict(x_t).exp(), (0, 1))
            term = transition.bound_term(STATES, x_t, clean, steps(t), limit).sum(1)
            bound += (t / total) ** m * (1 - t / total) ** (LENGTH - m) * term
        errors.append(float((bound - exact).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] < 0.1
