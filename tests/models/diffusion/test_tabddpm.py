"""TabDDPM: choices by enumeration of the chain, numbers against closed forms."""

import itertools
import math

import pytest
import torch
from torch import nn

import zoo
from tests.data.table.examples import SPEC, rows
from zoo.core.columns import Column, write_columns
from zoo.core.errors import ConfigError
from zoo.core.spaces import Table
from zoo.models.diffusion.tabddpm import TabDDPM

CHOICES = (Column("two", "category", ("a", "b")), Column("three", "category", ("a", "b", "c")))
NUMBER = Column("size", "number", low=-50.0, high=50.0, knots=(0.0, 1.0), scores=(-50.0, 50.0))  # its own score
STATES = torch.tensor(list(itertools.product(range(3), range(4))))  # codes of both choices, the masks last
CLEAN = torch.tensor(list(itertools.product(range(2), range(3))))
MEAN, STD = 0.6, 0.5  # of the normal law below


def make(columns=CHOICES, name="uniform", steps=3):
    torch.manual_seed(0)
    sizes = {"name": "mlp", "width": 16, "depth": 1}
    spec = zoo.DataSpec(Table(write_columns(columns)))
    model = TabDDPM(spec, denoiser=sizes, transition={"name": name, "steps": steps}).eval()
    nn.init.normal_(model.denoiser.head.weight)  # untrained, it predicts nothing
    return model


def matrix(model, start, end, size):
    """Q of the steps from start to end, (K + 1, K + 1)."""
    a, b = model.transition.kept(torch.tensor([start, end]))
    limit = model.transition.limit(size)
    return b / a * torch.eye(size + 1).double() + (1 - b / a) * limit.expand(size + 1, -1)


def step_back(model, t, s):
    """p(x_s | x_t) of all states from Bayes' rule with matrices, (12, 12)."""
    codes, numbers, late = list(STATES.T), torch.zeros(len(STATES), 0), torch.full((len(STATES),), t)
    with torch.no_grad():
        predicted, _ = model.predict(codes, numbers, late)
    kernel = torch.ones(len(STATES), len(STATES)).double()
    for code, clean, states, size in zip(codes, predicted, STATES.T, (2, 3), strict=True):
        before, between, whole = (matrix(model, *ends, size) for ends in ((0, s), (s, t), (0, t)))
        possible = clean.double() * (whole[:, code].T > 0)
        weight = possible / possible.sum(1, keepdim=True) / whole[:, code].T.clamp(min=1e-30)
        reverse = (weight @ before) * between[:, code].T  # (12, K + 1)
        kernel *= reverse[:, states]
    return kernel.nan_to_num()


def law(model, times):
    """Probabilities of the six rows under the reverse chain."""
    p = model.transition.limit(2)[STATES[:, 0]] * model.transition.limit(3)[STATES[:, 1]]
    for t, s in itertools.pairwise(times):
        p = p @ step_back(model, t, s)
    return p[((STATES[:, 0] < 2) & (STATES[:, 1] < 3))]


@pytest.mark.parametrize(
    ("name", "steps", "visited"), [("uniform", 3, None), ("uniform", 6, 2), ("absorbing", 4, None)]
)
def test_samples_of_choices_have_the_law_of_the_chain(name, steps, visited):
    model = make(name=name, steps=steps)
    p = law(model, model.transition.times(visited))
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    x = model.sample(4000, generator=torch.Generator().manual_seed(0), steps=visited)
    counts = torch.bincount(x[:, :2].argmax(1) * 3 + x[:, 2:].argmax(1), minlength=6)
    assert ((counts - 4000 * p).square() / (4000 * p)).sum() < 30  # 5 degrees of freedom: p = 1e-5
    other = law(make(name="absorbing" if name == "uniform" else "uniform", steps=steps), [steps, 0])
    assert ((counts - 4000 * other).square() / (4000 * other)).sum() > 100


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_the_bound_of_choices_is_the_enumerated_one_and_above_the_log_probability(name):
    model = make(name=name)
    exact = torch.zeros(6).double()
    for t in range(1, 4):
        reverse = step_back(model, t, t - 1)
        for index, x in enumerate(CLEAN):
            q = matrix(model, 0, t, 2)[x[0], STATES[:, 0]] * matrix(model, 0, t, 3)[x[1], STATES[:, 1]]
            for state in q.nonzero()[:, 0]:
                true = torch.ones(len(STATES)).double()
                for column, size in ((0, 2), (1, 3)):
                    before, last = matrix(model, 0, t - 1, size), matrix(model, t - 1, t, size)
                    here = before[x[column]] * last[:, STATES[state, column]]
                    true = true * (here / here.sum())[STATES[:, column]]
                seen = true > 0
                exact[index] += q[state] * (true[seen] * (true[seen] / reverse[state][seen]).log()).sum()
    nats = -law(model, [3, 2, 1, 0]).log()
    assert (exact > nats).all()
    x = torch.cat([torch.eye(2)[CLEAN[:, 0]], torch.eye(3)[CLEAN[:, 1]]], 1)
    draws = model.bound(x.repeat(1000, 1), 1, torch.Generator().manual_seed(0)).view(1000, 6).double()
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() < 5 * error).all()
    assert ((nats - exact).abs() > 5 * error).any(), "the test tells the bound from the probability"


class Exact(nn.Module):
    """The v of a normal law, which is a linear function of z."""

    def forward(self, row, noise):
        kept = torch.sigmoid(4 * noise.double())[:, None]
        a, s = kept.sqrt(), (1 - kept).sqrt()
        x = MEAN + a * STD**2 * (row - a * MEAN) / (kept * STD**2 + 1 - kept)
        return ((a * row - x) / s).to(row)


def normal_model(steps=8):
    model = make((NUMBER,), steps=steps)
    model.denoiser = Exact()
    return model


def test_the_terms_of_numbers_are_those_of_a_normal_law():
    """E (x - E[x | z_t])^2 = 1 / (1 / std^2 + SNR)."""
    model, generator = normal_model(), torch.Generator().manual_seed(0)
    x = MEAN + STD * torch.randn(40_000, 1, generator=generator)
    for t in range(2, 9):
        earlier, kept = model.transition.kept(torch.tensor([t - 1, t])).tolist()
        share, weight = (1 - earlier) / (1 - kept), (earlier - kept) / (1 - kept) ** 2
        found = model.terms(x, torch.full((len(x),), t), *model.draw_noise(len(x), generator))
        error = float(found.std()) / len(x) ** 0.5
        wanted = [
            0.5 * (share - 1 - math.log(share) + weight / (1 / STD**2 + kept / (1 - kept))),
            0.5 * (share - 1 - math.log(share) + weight * STD**2),  # the variance without z_t
        ]
        assert abs(float(found.mean()) - wanted[0]) < 5 * error + 1e-6
        assert abs(float(found.mean()) - wanted[1]) > 5 * error or t > 6


def test_samples_of_numbers_have_the_law_of_the_chain():
    """The chain is linear: its mean and variance follow step by step. Without noise on the way, they do not fit."""
    model = normal_model()
    x = model.sample(40_000, generator=torch.Generator().manual_seed(0))
    laws = []
    for noisy in (1.0, 0.0):
        mean, variance = 0.0, 1.0
        for t in range(8, 0, -1):
            b, a = model.transition.kept(torch.tensor([t - 1, t])).tolist()
            gain = math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)  # of the estimate
            of_z, of_x = math.sqrt(a / b) * (1 - b) / (1 - a), math.sqrt(b) * (1 - a / b) / (1 - a)
            mean = of_z * mean + of_x * (MEAN + gain * (mean - math.sqrt(a) * MEAN))
            added = 1 - a / b  # the last step has the width of z_1
            variance = (of_z + of_x * gain) ** 2 * variance + noisy * added
        laws.append((mean, variance))
    (mean, variance), (_, other) = laws
    assert float(x.mean()) == pytest.approx(mean, abs=5 * (variance / 40_000) ** 0.5)
    assert float(x.var()) == pytest.approx(variance, rel=5 * (2 / 40_000) ** 0.5)
    assert float(x.var()) != pytest.approx(other, rel=0.05)


def test_the_bound_of_a_normal_law_is_near_its_entropy_and_falls_with_steps():
    generator = torch.Generator().manual_seed(0)
    x = MEAN + STD * torch.randn(20_000, 1, generator=generator)
    entropy = math.log(STD) + 0.5 * math.log(2 * math.pi * math.e)
    found = [float(normal_model(steps).bound(x, 4, generator).mean()) for steps in (4, 32)]
    assert entropy < found[1] < found[0]
    assert found[1] < entropy + 0.1


def test_every_kind_of_column_is_sampled_as_a_valid_row():
    for transition in ("uniform", "absorbing"):
        model = TabDDPM(SPEC, denoiser={"name": "mlp", "width": 16, "depth": 1}, transition=transition)
        x = model.sample(50, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(model.codec.snap(x), x)
        first = model.sample(5, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(first, x[:5], atol=1e-5), "rows do not depend on their number"
        nats = model.likelihoods(rows(20))[0].value
        assert nats.shape == (20,)
        assert nats.isfinite().all()
    with pytest.raises(ConfigError, match="steps=65: the transition has 64"):
        model.sample(1, steps=65)
