"""D3PM as a model: bound and samples against enumeration of its chain."""

import itertools
import math

import pytest
import torch

from zoo.core.errors import ConfigError
from zoo.core.spaces import Image, Label, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.diffusion.d3pm import D3PM

NETWORK = {"name": "transformer_encoder", "d_model": 16, "n_layers": 1, "n_heads": 2, "dropout": 0.0}
TINY = DataSpec(Image(1, 1, 2, levels=3), name="tiny")  # two pixels of three levels
STATES = torch.tensor(list(itertools.product(range(4), repeat=2)))  # with masks
CLEAN = STATES[(STATES < 3).all(1)]


def make(spec=TINY, name="uniform", steps=3, **settings):
    torch.manual_seed(0)
    model = D3PM(spec, backbone=NETWORK, transition={"name": name, "steps": steps}, **settings)
    for p in model.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.4)
    return model.double().eval()


def law(model, times):
    """Probabilities of the clean states under the reverse chain."""
    p = model.limit[STATES].prod(1)
    first = torch.full((len(STATES), 1), model.none)
    for t, s in itertools.pairwise(times):
        late, soon = (torch.full((len(STATES),), step) for step in (t, s))
        with torch.no_grad():
            clean = model.clean(model.logits(torch.cat([first, STATES], 1), late))
        reverse = model.transition.posterior(STATES, clean, soon, late, model.limit)
        p = p @ (reverse[:, 0][:, STATES[:, 0]] * reverse[:, 1][:, STATES[:, 1]])
    return p[(STATES < 3).all(1)]


@pytest.mark.parametrize(
    ("name", "steps", "visited"), [("uniform", 3, None), ("uniform", 6, 2), ("absorbing", 4, None)]
)
def test_samples_have_the_law_of_the_chain(name, steps, visited):
    model = make(name=name, steps=steps)
    p = law(model, model.transition.times(visited))
    assert float(p.sum()) == pytest.approx(1, abs=1e-10)
    x = model.sample(4000, generator=torch.Generator().manual_seed(0), steps=visited)
    tokens = model.pixels.encode(x)
    counts = torch.bincount((tokens * torch.tensor([3, 1])).sum(1), minlength=9)
    statistic = ((counts - 4000 * p).square() / (4000 * p)).sum()
    assert statistic < 36  # 8 degrees of freedom: p = 2e-5
    other = law(make(name="absorbing" if name == "uniform" else "uniform", steps=steps), [steps, 0])
    assert ((counts - 4000 * other).square() / (4000 * other)).sum() > 100


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_the_bound_is_an_estimate_above_the_log_probability(name):
    model = make(name=name)
    x = model.pixels.decode(CLEAN)
    draws = model.bound(x.repeat(300, 1, 1, 1), draws=3).sum(1).view(300, 9)  # every step each time
    mean, error = draws.mean(0), draws.std(0) / math.sqrt(len(draws))
    assert (mean + 5 * error > -law(model, model.transition.times(None)).log()).all()
    exact, limit, first = torch.zeros(9).double(), model.limit, torch.full((len(STATES), 1), model.none)
    for t in range(1, 4):
        late, a = torch.full((len(STATES),), t), float(model.transition.kept(torch.tensor([t])))
        with torch.no_grad():
            clean = model.clean(model.logits(torch.cat([first, STATES], 1), late))
        for index, pair in enumerate(CLEAN):
            q = (a * (pair == STATES) + (1 - a) * limit[STATES]).prod(1)
            term = model.transition.bound_term(pair.expand(len(STATES), -1), STATES, clean, late, limit).sum(1)
            exact[index] += (q * term)[q > 0].sum()
    assert ((mean - exact).abs() < 5 * error + 1e-9).all()
    assert ((mean - exact * 2 / 3).abs() > 5 * error).all(), "a step left out would be seen"


def test_the_objective_adds_the_cross_entropy():
    x, y = torch.randint(0, 5, (2, 6)), torch.randint(0, 5, (2, 6))
    y[0, 4:] = -100
    models = [make(DataSpec(Tokens(6, 5)), auxiliary=weight) for weight in (0.0, 0.5)]
    found = []
    for model in models:
        tokens, scored = model.rows(x, y)
        torch.manual_seed(0)
        found.append((*model.noisy_nats(tokens, scored, torch.tensor([0.1, 0.7]), torch.Generator().manual_seed(0)),))
    (plain, bound), (more, same) = found
    assert torch.equal(plain, bound)
    assert torch.equal(bound, same)
    assert (plain[0, 4:] == 0).all()
    assert (more - plain)[y >= 0].min() > 0
    assert (more - plain)[y < 0].abs().max() == 0


def test_the_last_step_has_no_information_about_the_data():
    model = make(DataSpec(Tokens(6, 5)), name="absorbing")
    seen = []
    model.net.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    x = torch.randint(0, 5, (4, 6))
    tokens, scored = model.rows(x, x)
    model.noisy_nats(tokens, scored, torch.full((4,), 0.999), None)
    assert (seen[0][:, 2:] == model.mask_token).all()
    assert (seen[0][:, 1] == model.none + 3).all()
    model.noisy_nats(tokens, scored, torch.full((4,), 0.0), None)
    assert (seen[1][:, 1] == model.none + 1).all()


def test_labels_and_steps():
    model = make(DataSpec(Image(1, 2, 2, levels=3), Label(4)))
    assert model.conditional
    assert model.sample(3, condition=torch.tensor([0, 1, 3]), guidance=2.0).shape == (3, 1, 2, 2)
    assert make(steps=6).transition.times(4) == [6, 5, 3, 2, 0]
    with pytest.raises(ConfigError, match="steps=5: the transition has 3"):
        model.sample(1, steps=5)
    terms = model.loss(Batch(torch.zeros(2, 1, 2, 2).double(), torch.zeros(2, dtype=torch.long)))
    assert float(terms["bits_per_dim"]) == pytest.approx(terms["loss"].item() / 4 / math.log(2), rel=0.2)
