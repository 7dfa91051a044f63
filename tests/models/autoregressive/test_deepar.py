"""DeepAR: a normalised, causal density, whose samples and forecasts follow it."""

import math

import pytest
import torch

import zoo
from tests.contracts.test_models import prepare
from zoo.core.spaces import Series
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.data.series.synthetic import LAWS

ONE = zoo.DataSpec(Series(2, ("x",), 1), name="one")
SMALL = {"d_model": 8, "n_layers": 1}


def rough(spec: zoo.DataSpec = ONE, **given):
    """A model whose weights are large enough for its steps to depend on one another."""
    torch.manual_seed(0)
    model = zoo.create_model("deepar", data=spec, **SMALL | given).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    model.location.fill_(0.0 if model.emission.counts else 0.3)
    model.scale.fill_(1.5)
    return model


@pytest.mark.parametrize("scaling", ["none", "mean"])
@pytest.mark.parametrize("emission", ["gaussian", "student_t"])
def test_a_density_integrates_to_one(emission: str, scaling: str) -> None:
    model = rough(emission=emission, scaling=scaling)
    side = torch.linspace(-150, 150, 1501)
    near = torch.linspace(-20, 20, 401)
    x = torch.cartesian_prod(near, side)[..., None]  # the second step is wide where the first is far away
    with torch.no_grad():
        total = float(model.log_prob(x).exp().double().sum()) * 0.1 * 0.2
    assert total == pytest.approx(1, abs=0.01)


def test_the_mass_of_counts_sums_to_one() -> None:
    model = rough(emission="negative_binomial", scaling="mean")
    side = torch.arange(120.0)
    with torch.no_grad():
        total = float(model.log_prob(torch.cartesian_prod(side, side)[..., None]).exp().sum())
    assert total == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("emission", ["gaussian", "student_t", "negative_binomial"])
def test_samples_follow_the_density(emission: str) -> None:
    """The distribution function of the sum of two steps, of samples and of the density on a grid."""
    model, n = rough(emission=emission, scaling="mean"), 20_000
    counts = model.emission.counts
    side = torch.arange(150.0) if counts else torch.linspace(-40, 40, 801)
    x = torch.cartesian_prod(side, side)[..., None]
    with torch.no_grad():
        p = model.log_prob(x).exp().double() * (1 if counts else 0.01)
        drawn = model.sample(n, generator=make_generator(0)).sum((1, 2))
    sums = x.sum((1, 2))
    for level in (-2.05, 0.55, 1.55, 3.55):
        share = float(p[sums <= level].sum())
        error = math.sqrt(max(share * (1 - share), 1e-4) / n)
        assert abs(float((drawn <= level).double().mean()) - share) < 4.5 * error + 0.01  # of the grid
    assert abs(float((drawn + 1 <= 1.55).double().mean()) - float(p[sums <= 1.55].sum())) > 0.03


def test_a_step_depends_on_those_before_only() -> None:
    spec = zoo.DataSpec(Series(6, ("a", "b"), 2))
    model = rough(spec, scaling="mean")
    x = torch.randn(3, 6, 2, generator=make_generator(1))
    other = x.clone()
    other[:, 3] += 1
    one, two = model.step_log_prob(x), model.step_log_prob(other)
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.isclose(one[:, 4:], two[:, 4:]).any()


@pytest.mark.parametrize(
    ("cell", "emission"), [("lstm", "gaussian"), ("gru", "student_t"), ("lstm", "negative_binomial")]
)
def test_a_forecast_with_a_state_equals_one_from_the_start(cell: str, emission: str) -> None:
    spec = zoo.DataSpec(Series(8, ("a", "b"), 3), Series(8, ("c",), 3))
    model = rough(spec, cell=cell, emission=emission, scaling="mean", n_layers=2)
    past = torch.randint(5, (2, 5, 2), generator=make_generator(2)).float()
    known = torch.randn(2, 8, 1, generator=make_generator(3))
    noise = torch.rand(2, 4, 3, 2, 2, generator=make_generator(4))
    with torch.no_grad():
        found = model.continued(past, noise, known)
        for b in range(2):
            for i in range(4):
                x = past[b : b + 1]
                for step in range(3):
                    inputs, unit = model.inputs(x, known[b : b + 1, : 6 + step])
                    params = model.params(model.cells(inputs)[0])[:, -1]
                    value = model.emission.from_uniform(params, unit[:, -1], noise[b, i, step][None])
                    x = torch.cat([x, (value + model.location)[:, None]], 1)
                assert torch.allclose(found[b, i], x[0, 5:], atol=1e-4)


def test_missing_values_are_not_scored_and_are_read_as_missing() -> None:
    spec = zoo.DataSpec(Series(4, ("x",), 1, missing=True))
    model = rough(spec)
    x = torch.randn(2, 4, 1, generator=make_generator(5))
    gone = x.clone()
    gone[:, 1] = torch.nan
    steps, full = model.step_log_prob(gone), model.step_log_prob(x)
    assert (steps[:, 1] == 0).all()
    assert torch.equal(steps[:, 0], full[:, 0])
    assert not torch.isclose(steps[:, 2:], full[:, 2:]).any(), "the next step sees that the value is missing"
    loss = model.loss(Batch(gone, torch.zeros(2)))["loss"]
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.forecast(gone, 2, 3, generator=make_generator(0)).isfinite().all()


def test_covariates_are_read() -> None:
    spec = zoo.DataSpec(Series(4, ("x",), 1), Series(4, ("promotion",), 1))
    model = rough(spec)
    x, y = torch.randn(2, 4, 1), torch.zeros(2, 4, 1)
    assert torch.equal(model.log_prob(x), model.log_prob(x, y)), "none are covariates at their means"
    assert not torch.isclose(model.log_prob(x), model.log_prob(x, y + 1)).any()
    with pytest.raises(zoo.ZooError, match=r"covariates \(2, 5, 1\)"):
        model.forecast(x[:, :3], 2, 5, condition=y)
    with pytest.raises(zoo.ZooError, match="covariates none"):
        rough().forecast(x[:, :1], 1, 5, condition=y[:, :2])


def test_counts_are_required_where_the_emission_is_of_counts() -> None:
    with pytest.raises(zoo.ZooError, match="not counts"):
        prepare(zoo.create_model("deepar", data=ONE, emission="negative_binomial", **SMALL))


def test_it_learns_a_law() -> None:
    """The loss nears the entropy of AR(2), below that of independent values of the same variance."""
    law = LAWS["ar"]
    spec = zoo.DataSpec(Series(16, ("x",), 4))
    torch.manual_seed(0)
    model = zoo.create_model("deepar", data=spec, cell="gru", d_model=16, n_layers=1)
    x, held = (law.sample(n, 16, make_generator(seed)).float()[..., None] for seed, n in ((0, 2000), (1, 500)))
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for step in range(200):
        optimizer.zero_grad()
        rows = torch.randint(2000, (128,), generator=make_generator(2, step))
        model.loss(Batch(x[rows], rows))["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        found = -float(model.log_prob(held).mean())
    exact = -float(law.log_prob(held[..., 0]).mean())
    independent = 16 * 0.5 * math.log(2 * math.pi * math.e * law.autocovariance(1).item())
    assert exact < found < exact + 1.0 < independent - 5
