"""Classical models of time series against least squares of numpy, exact laws and closed forms."""

import numpy as np
import pytest
import torch

import zoo
from zoo.core.spaces import Series
from zoo.data.loader import make_generator
from zoo.data.series.synthetic import LAWS

ONE = zoo.DataSpec(Series(24, ("x",), 6))
AR2 = LAWS["ar"]


def data(n: int, seed: int = 0, length: int = 24) -> torch.Tensor:
    return AR2.sample(n, length, make_generator(seed)).float()[..., None]


def fitted(name: str, x: torch.Tensor, **given):
    model = zoo.create_model(name, data=zoo.DataSpec(Series(x.shape[1], ("a", "b")[: x.shape[2]], 1)), **given)
    model.fit(x)
    return model


def test_weights_are_those_of_least_squares() -> None:
    x = torch.randn(40, 7, 2, generator=make_generator(0)).cumsum(1)
    model = fitted("var", x, order=2)
    rows = np.concatenate(
        [np.concatenate([np.ones((40, 1)), x[:, t - 1].numpy(), x[:, t - 2].numpy()], 1) for t in range(2, 7)]
    )
    target = np.concatenate([x[:, t].numpy() for t in range(2, 7)])
    weight, *_ = np.linalg.lstsq(rows, target, rcond=None)
    assert model.weight[2].numpy() == pytest.approx(weight, abs=1e-6)
    noise = (target - rows @ weight).T @ (target - rows @ weight) / len(rows)
    assert (model.factor[2] @ model.factor[2].T).numpy() == pytest.approx(noise, abs=1e-6)


def test_its_likelihood_and_forecasts_are_nearly_those_of_the_law() -> None:
    model, held = fitted("var", data(4000), order=2), data(500, 1)
    exact = AR2.log_prob(held[..., 0])
    assert float((model.log_prob(held) - exact).mean()) == pytest.approx(0, abs=0.05)
    white = fitted("var", data(4000)[:, torch.randperm(24, generator=make_generator(0))], order=2)
    assert float((white.log_prob(held) - exact).mean()) < -1, "another order of the steps is found"
    mean, factor = AR2.conditional(held[:3, :, 0], 4)
    paths = model.forecast(held[:3], 4, 4000, generator=make_generator(2))[..., 0]
    spread = factor.square().sum(1).sqrt()
    assert float(((paths.mean(1) - mean) / spread).abs().max()) < 4.5 / 4000**0.5 + 0.06  # of the weights
    assert paths.std(1).mean(0).numpy() == pytest.approx(spread.numpy(), rel=0.06)


@pytest.mark.parametrize(("name", "given"), [("var", {"order": 1}), ("seasonal_naive", {"period": 1})])
def test_a_density_integrates_to_one(name: str, given: dict) -> None:
    model = fitted(name, data(300, length=2), **given)
    side = torch.linspace(-9, 9, 361)
    p = model.log_prob(torch.cartesian_prod(side, side)[..., None]).exp()
    assert float(p.sum()) * 0.05**2 == pytest.approx(1, abs=1e-3)


def test_a_naive_forecast_repeats_the_season_with_growing_variance() -> None:
    x = data(200)
    model = fitted("seasonal_naive", x, period=5)
    std = float((x[:, 5:] - x[:, :-5]).square().mean().sqrt())
    n = 20_000
    paths = model.forecast(x[:1], 11, n, generator=make_generator(0))[0, :, :, 0]
    seasons = torch.tensor([1] * 5 + [2] * 5 + [3])
    want = x[0, -5:, 0].repeat(3)[:11]
    assert float(((paths.mean(0) - want) / (std * seasons.sqrt())).abs().max()) < 4.5 / n**0.5
    assert paths.std(0).numpy() == pytest.approx(std * seasons.sqrt().numpy(), rel=4.5 / (2 * n) ** 0.5)


def test_samples_have_the_covariance_of_the_law() -> None:
    drawn = fitted("var", data(4000), order=2).sample(8000, generator=make_generator(3))[..., 0]
    assert torch.cov(drawn.T).numpy() == pytest.approx(AR2.covariance(24).float().numpy(), abs=0.12)


def test_a_constant_column_has_a_density() -> None:
    x = torch.cat([data(50), torch.ones(50, 24, 1)], 2)
    for name in ("var", "seasonal_naive"):
        model = fitted(name, x)
        assert model.log_prob(x).isfinite().all()
        assert model.sample(3, generator=make_generator(0))[..., 1].numpy() == pytest.approx(1, abs=0.01)
