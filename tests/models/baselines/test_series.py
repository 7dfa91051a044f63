"""Classical models of time series against least squares of numpy, exact laws and closed forms."""

import math

import numpy as np
import pytest
import torch

import zoo
from zoo.core.spaces import Series
from zoo.data.batch import Batch
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


def regression(n: int, seed: int, length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Two columns that follow a VARX of order 1 with two covariates: x_t = A x_{t-1} + B c_t + noise, from zero."""
    generator = make_generator(seed)
    c = torch.rand(n, length, 2, generator=generator).round() * torch.tensor([1.0, 3.0])
    noise, x = 0.3 * torch.randn(n, length, 2, generator=generator), [torch.zeros(n, 2)]
    for t in range(length):
        x.append(x[-1] @ A.T + c[:, t] @ B.T + noise[:, t])
    return torch.stack(x[1:], 1), c


A, B = torch.tensor([[0.6, 0.2], [-0.1, 0.5]]), torch.tensor([[2.0, 0.0], [-1.0, 0.7]])
WITH = zoo.DataSpec(Series(12, ("a", "b"), 3), Series(12, ("c", "d"), 3))


def test_known_covariates_of_the_future_are_read() -> None:
    """Weights, likelihood and forecasts are those of the law; without covariates, or with others, they are not."""
    x, c = regression(3000, 0)
    model = zoo.create_model("var", data=WITH, order=1)
    model.fit(model.statistics(Batch(x, c)))
    weight = model.weight[1].float()  # constant, covariates, lag
    assert weight[1:3].T.numpy() == pytest.approx(B.numpy(), abs=0.02)
    assert weight[3:].T.numpy() == pytest.approx(A.numpy(), abs=0.02)
    assert weight[0].numpy() == pytest.approx(0, abs=0.03)
    held, known = regression(400, 1)
    residual = (held[:, 1:] - held[:, :-1] @ A.T - known[:, 1:] @ B.T) / 0.3
    exact = torch.distributions.Normal(0, 1).log_prob(residual).sum((1, 2)) - residual[0].numel() * math.log(0.3)

    def after_the_first(model, *given: torch.Tensor) -> torch.Tensor:
        """Log-density of all steps of the windows but the first, which the law draws from zero."""
        return model.log_prob(held, *given) - model.log_prob(held[:, :1], *(c[:, :1] for c in given))

    assert float((after_the_first(model, known) - exact).mean()) == pytest.approx(0, abs=0.05)
    assert float((after_the_first(model, known.flip(0)) - exact).mean()) < -10, "control: covariates of other windows"
    past, n = held[:, :9], 600
    paths = model.forecast(past, 3, n, condition=known, generator=make_generator(4))
    want = past[:, -1]
    for t in range(3):
        want = want @ A.T + known[:, 9 + t] @ B.T
        assert (paths[:, :, t].mean(1) - want).abs().mean().item() < 0.04
        unread = model.forecast(past, 3, n, generator=make_generator(4))[:, :, t].mean(1)
        assert (unread - want).abs().mean().item() > 0.5, "control: their means in place of the future"
    assert model.sample(5, condition=known[:5], generator=make_generator(0)).shape == (5, 12, 2)
    with pytest.raises(zoo.ZooError, match=r"covariates \(400, 12, 2\)"):
        model.forecast(past, 3, 5, condition=known[:, :9])
    plain = zoo.create_model("var", data=zoo.DataSpec(WITH.x), order=1)
    plain.fit(plain.statistics(Batch(x, c)))
    assert float((after_the_first(plain) - exact).mean()) < -5
    assert torch.equal(plain.forecast(past, 3, 2, condition=known, generator=make_generator(0)),
                       plain.forecast(past, 3, 2, generator=make_generator(0)))  # fmt: skip


def test_a_constant_column_has_a_density() -> None:
    x = torch.cat([data(50), torch.ones(50, 24, 1)], 2)
    for name in ("var", "seasonal_naive"):
        model = fitted(name, x)
        assert model.log_prob(x).isfinite().all()
        assert model.sample(3, generator=make_generator(0))[..., 1].numpy() == pytest.approx(1, abs=0.01)
