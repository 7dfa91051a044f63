"""Samplers of masked diffusion against their laws by enumeration."""

import itertools
import math

import pytest
import torch

from tests.nn.diffusion.joint import (
    CRITICAL,
    LENGTH,
    MASK,
    MASKED_STATES,
    STATES,
    VOCAB,
    chain_rule,
    chi_square,
    conditionals,
    random_joint,
    random_network,
)
from zoo.nn.diffusion.masking import masked_share
from zoo.nn.diffusion.unmasking import (
    AncestralUnmasking,
    AnyOrderUnmasking,
    ConfidenceUnmasking,
    Remasking,
    draw_tokens,
    uniform_noise,
)
from zoo.nn.samplers.sampling_params import SamplingParams

N = 4000
SAMPLERS = {s.registered_name: s for s in (AncestralUnmasking, AnyOrderUnmasking, ConfidenceUnmasking, Remasking)}


def run(name, predict, tokens=None, hidden=None, n=N, seed=0, params=None, **settings):
    """The last tokens, and their log-probabilities."""
    sampler = SAMPLERS[name](**settings)
    tokens = torch.full((n, LENGTH), MASK) if tokens is None else tokens
    hidden = tokens == MASK if hidden is None else hidden
    noise = uniform_noise(*tokens.shape, torch.Generator().manual_seed(seed), "cpu")
    *_, state = sampler.unmask(predict, tokens, hidden, MASK, noise, params or SamplingParams())
    return state


def total_variation(one, two):
    return float((one - two).abs().sum() / 2)


def parallel_law(predict, steps, schedule="linear"):
    """Law of ancestral sampling: every assignment of positions to steps, each step's tokens independent."""
    ratio = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    chance = (-masked_share(ratio, schedule).diff()).tolist()
    law = torch.zeros(len(STATES), dtype=torch.float64)
    for step_of in itertools.product(range(steps), repeat=LENGTH):
        log_p = torch.zeros(len(STATES), dtype=torch.float64)
        for step in set(step_of):
            later = torch.tensor([own >= step for own in step_of])
            now = torch.tensor([own == step for own in step_of])
            logits = predict(STATES.masked_fill(later, MASK)).gather(2, STATES[..., None]).squeeze(2)
            log_p = log_p + (logits * now).sum(1)
        law += math.prod(chance[step] for step in step_of) * log_p.exp()
    return law


def remasking_law(predict, sampler, states=MASKED_STATES):
    """Laws over all masked states after each step, as a Markov chain."""
    p = (states == MASK).all(1).double()
    for index in range(sampler.steps):
        hide, reveal = sampler.probabilities(index)
        drawn = predict(states).exp()  # (S, L, V)
        masked = states == MASK
        from_mask = torch.cat([reveal * drawn, torch.full((*masked.shape, 1), 1 - reveal, dtype=torch.float64)], 2)
        stays = torch.nn.functional.one_hot(states, VOCAB + 1).double() * (1 - hide)
        stays[..., MASK] += hide
        each = torch.where(masked[..., None], from_mask, stays)  # (S, L, V + 1)
        kernel = torch.stack([each[:, i][:, states[:, i]] for i in range(states.shape[1])]).prod(0)  # (S, S)
        p = p @ kernel
        yield p


# -- one token after another ---------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", [conditionals(random_joint()), random_network()], ids=["exact", "random"])
def test_one_token_a_step_is_the_mean_of_all_chain_rules(predict):
    orders = itertools.permutations(range(LENGTH))
    law = torch.stack([(-chain_rule(predict, STATES, order)).exp() for order in orders]).mean(0)
    tokens, _ = run("any_order", predict, steps=LENGTH)
    assert chi_square(tokens, law) < CRITICAL
    assert chi_square(tokens, random_joint(5)) > 10 * CRITICAL


def test_with_the_exact_denoiser_one_token_a_step_has_the_law_of_the_data():
    joint = random_joint()
    assert chi_square(run("any_order", conditionals(joint), steps=64)[0], joint) < CRITICAL
    at_once, _ = run("any_order", conditionals(joint), steps=1)
    assert chi_square(at_once, joint) > 3 * CRITICAL, "tokens drawn together are independent"


# -- several at a time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_sampling_has_its_law(schedule):
    predict = conditionals(random_joint())
    law = parallel_law(predict, 3, schedule)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    tokens, log_p = run("ancestral", predict, steps=3, schedule=schedule)
    assert chi_square(tokens, law) < CRITICAL
    assert (log_p <= 0).all()
    other = "cosine" if schedule == "linear" else "linear"
    assert total_variation(law, parallel_law(predict, 3, other)) > 0.01


def test_ancestral_sampling_comes_near_the_data_with_more_steps():
    joint = random_joint()
    errors = [total_variation(parallel_law(conditionals(joint), steps), joint) for steps in (1, 2, 8)]
    assert errors[0] > 1.8 * errors[1] > 3 * errors[2] > 0


def test_remasking_is_a_markov_chain_with_these_probabilities():
    predict = conditionals(random_joint())
    sampler = Remasking(steps=6, eta=0.5, rule="rescale")
    *_, law = remasking_law(predict, sampler)
    clean = law[(MASKED_STATES != MASK).all(1)]
    assert float(clean.sum()) == pytest.approx(1, abs=1e-12)
    tokens, _ = run("remasking", predict, steps=6, eta=0.5, rule="rescale")
    assert chi_square(tokens, clean) < CRITICAL
    without = Remasking(steps=6, eta=0.0)
    *_, ancestral = remasking_law(predict, without)
    assert total_variation(ancestral[(MASKED_STATES != MASK).all(1)], parallel_law(predict, 6)) < 1e-12
    assert total_variation(law, ancestral) > 0.02


@pytest.mark.parametrize(("rule", "eta"), [("cap", 0.1), ("rescale", 0.7), ("cap", 1.0)])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_remasking_keeps_the_share_of_masks(rule, eta, schedule):
    """With a token that is independent of the rest, its law is exact at every step: the mask's share, times p."""
    joint = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    states = torch.arange(VOCAB + 1)[:, None]

    def predict(tokens):
        return joint.log().expand(len(tokens), 1, -1)

    sampler = Remasking(steps=10, eta=eta, rule=rule, schedule=schedule)
    share = masked_share(torch.arange(1, 11).double() / 10, schedule)
    for p, masked in zip(remasking_law(predict, sampler, states), share, strict=True):
        assert torch.allclose(p, torch.cat([(1 - masked) * joint, masked[None]]), atol=1e-12)

    class Wrong(Remasking):
        """Tokens are hidden again, and masks replaced as often as without."""

        def probabilities(self, index):
            t, s = index / 10, (index + 1) / 10
            return super().probabilities(index)[0], (s - t) / (1 - t)

    wrong = Wrong(steps=10, eta=eta, rule=rule)
    *_, before, _ = remasking_law(predict, wrong, states)
    assert abs(float(before[-1]) - float(share[-2])) > 0.01


def test_remasking_comes_near_the_data_with_more_steps():
    """In the limit a step changes one token at most, if eta falls with the number of steps."""
    joint = random_joint()

    def error(steps):
        *_, law = remasking_law(conditionals(joint), Remasking(steps=steps, eta=2 / steps))
        return total_variation(law[(MASKED_STATES != MASK).all(1)], joint)

    few, more, many = error(8), error(32), error(128)
    assert few > 3 * more > 9 * many
    assert many < 0.01


def test_confidence_keeps_the_likeliest():
    """Against a plain loop, one row at a time, without randomness."""

    def predict(tokens):
        generator = torch.Generator().manual_seed(7)
        table = torch.randn(5, 11, 12, generator=generator).double()
        return table[(tokens == MASK).sum(1) % 5] + 0.1 * tokens[..., None]

    begin = torch.full((2, 11), MASK)
    begin[1, ::2] = 0  # a prompt
    got, _ = run("confidence", predict, begin, params=SamplingParams(temperature=0), choice_temperature=0.0, steps=4)
    for row, total in ((0, 11), (1, 5)):
        tokens = begin[row].clone()
        for index in range(4):
            masked = (tokens == MASK).nonzero()[:, 0].tolist()
            keep = min(math.floor(math.cos(math.pi / 2 * (index + 1) / 4) * total), len(masked) - 1)
            keep = 0 if index == 3 else max(keep, 0)
            best = predict(tokens[None])[0].log_softmax(-1).max(-1)
            by_confidence = sorted(masked, key=lambda i: float(best.values[i]))
            for place in by_confidence[keep:]:
                tokens[place] = best.indices[place]
        assert torch.equal(got[row], tokens)
    noisy, _ = run("confidence", predict, begin, params=SamplingParams(temperature=0), choice_temperature=50.0, steps=4)
    assert not torch.equal(noisy, got)


def test_confidence_favours_likely_samples():
    joint = random_joint()
    tokens, _ = run("confidence", conditionals(joint), steps=LENGTH, choice_temperature=0.0)
    assert chi_square(tokens, joint) > 3 * CRITICAL


# -- rows, prompts and numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_prompt_and_other_masks_stay(name):
    predict = random_network()
    tokens = torch.tensor([[0, MASK, MASK], [MASK, 1, MASK]])
    hidden = torch.tensor([[False, True, False], [True, False, True]])
    got, _ = run(name, predict, tokens, hidden, steps=5)
    assert torch.equal(got[~hidden], tokens[~hidden])
    assert (got[hidden] != MASK).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_rows_do_not_depend_on_other_rows(name):
    predict = random_network()
    assert torch.equal(run(name, predict, n=40, steps=5)[0][:7], run(name, predict, n=7, steps=5)[0])


def test_unchanged_rows_are_not_evaluated():
    predict, seen = random_network(), []

    def counting(tokens):
        seen.append(len(tokens))
        return predict(tokens)

    tokens, _ = run("ancestral", counting, n=50, steps=200)
    assert (tokens != MASK).all()
    assert sum(seen) <= 50 * LENGTH


def test_rare_tokens_are_drawn_as_often_as_their_probability():
    """Numbers at the ends of a token's interval, in float64; with logits in single precision they are off."""
    logits = torch.full((1, 1, 1001), -18.0, dtype=torch.float64)
    logits[..., 0] = 0
    p = logits.softmax(-1)[0, 0]
    edges = p.cumsum(0)[:-1]
    for index in (3, 500, 998):
        inside = (edges[index - 1] + edges[index]) / 2
        assert draw_tokens(logits, inside.view(1, 1), SamplingParams())[0].item() == index
    single = logits.float().softmax(-1).cumsum(-1)[0, 0]
    assert (single.diff() == 0).any() or abs(float(single[500] - edges[500])) > float(p[500])
