"""Floors of bits per sample of sounds, against closed forms and enumeration."""

import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal

import zoo
from zoo.core.spaces import Audio
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.baselines.copies import TrainingSetBootstrap
from zoo.models.baselines.linear_prediction import LinearPrediction, cell_borders
from zoo.models.baselines.sound_markov import SoundMarkov
from zoo.nn.blocks.mu_law import LEVELS, mu_law_decode, mu_law_encode

SPEC = zoo.DataSpec(Audio(1, 400, 8000), name="noise")
EVERY = mu_law_decode(torch.arange(LEVELS)).double()  # a sample of each code
A, STD = torch.tensor([1.6, -0.81], dtype=torch.float64), 0.02  # a damped resonance


def resonance(n: int, seed: int = 0) -> torch.Tensor:
    """Sounds (n, 1, 400) of an AR(2) process that begins in silence."""
    noise = STD * torch.randn(n, 400, dtype=torch.float64, generator=make_generator(seed))
    x = torch.zeros(n, 402, dtype=torch.float64)
    for t in range(400):
        x[:, t + 2] = A[0] * x[:, t + 1] + A[1] * x[:, t] + noise[:, t]
    return x[:, None, 2:]


def fitted(kind: type, x: torch.Tensor, **settings: Any) -> Any:
    model = kind(SPEC, **settings)
    model.fit(model.statistics(Batch(x, torch.zeros(len(x)))))
    return model


def test_borders_of_cells_are_where_the_code_changes():
    inner = cell_borders()[1:-1]
    assert (mu_law_encode(inner - 1e-6) == torch.arange(LEVELS - 1)).all()
    assert (mu_law_encode(inner + 1e-6) == torch.arange(1, LEVELS)).all()


@pytest.mark.parametrize("kind", [LinearPrediction, SoundMarkov])
def test_probabilities_of_the_next_code_sum_to_one(kind):
    model = fitted(kind, resonance(40))
    past = resonance(3, seed=1)[:, :, 50:54]
    for row in past:
        x = torch.cat([row.expand(LEVELS, 1, 4), EVERY[:, None, None]], 2)
        before = model.log_prob(x[:1, :, :4].contiguous())
        assert (model.log_prob(x) - before).exp().sum().item() == pytest.approx(1, abs=1e-9)
    pairs = torch.cartesian_prod(EVERY[::3], EVERY[::3])[:, None]  # not all codes: less than one
    assert model.log_prob(pairs).exp().sum().item() < 0.9


def test_linear_prediction_finds_the_law_and_its_bits():
    """Cells are small against the noise, so nats are -log(density x width): the entropy of the noise in closed form."""
    model = fitted(LinearPrediction, resonance(400))
    torch.testing.assert_close(model.weight, A, rtol=0, atol=0.02)
    x = resonance(100, seed=5)
    decoded = mu_law_decode(mu_law_encode(x)).double()
    borders = cell_borders()
    codes = mu_law_encode(x)
    width = (borders[codes + 1] - borders[codes]).clamp(max=1)
    mean = model.lagged(decoded, 3)[..., 1:] @ model.weight
    density = Normal(mean, model.std).log_prob(decoded)
    nats = model.log_prob(x)
    torch.testing.assert_close(nats, (density + width.log()).flatten(1).sum(1), rtol=5e-3, atol=0)
    ideal = 0.5 * math.log2(2 * math.pi * math.e * STD**2) - width.log2().mean().item()  # bits per sample
    bits = -nats.mean().item() / 400 / math.log(2)
    assert bits == pytest.approx(ideal, abs=0.05)
    markov = -fitted(SoundMarkov, resonance(400)).log_prob(x).mean().item() / 400 / math.log(2)
    assert ideal < bits + 0.05 < markov, "one sample before says less than two"
    model.weight.zero_()  # negative control
    assert -model.log_prob(x).mean().item() / 400 / math.log(2) > bits + 1


def test_a_markov_chain_reaches_its_entropy_rate():
    """Of codes that stay with probability 0.9, and else are 100 or 150 by a coin."""
    u = torch.rand(2, 300, 400, generator=make_generator(2))
    moves, where = u[0] > 0.9, 100 + 50 * (u[1] > 0.5).long()
    codes = where.clone()
    for t in range(1, 400):
        codes[:, t] = torch.where(moves[:, t], where[:, t], codes[:, t - 1])
    x = mu_law_decode(codes)[:, None].double()
    model = fitted(SoundMarkov, x)
    rate = -(0.95 * math.log(0.95) + 0.05 * math.log(0.05))
    want = (math.log(2) + 399 * rate) / 400
    assert -model.log_prob(x).mean().item() / 400 == pytest.approx(want, abs=0.01)
    shuffled = x[..., torch.randperm(400, generator=make_generator(3))]
    assert -model.log_prob(shuffled).mean().item() / 400 > 3 * want, "negative control: without order"
    drawn = mu_law_encode(model.sample(200, seed=0))
    stays = (drawn[..., 1:] == drawn[..., :-1]).double().mean().item()
    assert stays == pytest.approx(0.95, abs=0.01)


def test_samples_of_linear_prediction_have_its_spectrum():
    model = LinearPrediction(SPEC)
    model.weight.copy_(A)
    model.std.fill_(STD)
    again = fitted(LinearPrediction, model.sample(300, seed=0).double())
    torch.testing.assert_close(again.weight, A, rtol=0, atol=0.02)
    assert again.std.item() == pytest.approx(STD, rel=0.05)


def test_copies_of_sounds():
    x = resonance(20).float()
    model = TrainingSetBootstrap(SPEC)
    model.fit(x)
    drawn = model.sample(30, seed=0)
    assert all(any(torch.equal(one, known) for known in x) for one in drawn)
