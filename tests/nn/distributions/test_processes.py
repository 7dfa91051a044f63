"""Laws of series: autocovariances, likelihoods and forecasts against closed forms, recursions and statsmodels."""

import math

import pytest
import torch

from zoo.data.loader import make_generator
from zoo.nn.distributions.processes import Garch, LinearProcess, seasonal

AR1 = LinearProcess((0.7,), 0.5)
AR2 = LinearProcess((1.2, -0.5), 0.6)
GARCH = Garch(0.1, 0.3, 0.6)


def normal_log_prob(x: float, mean: float, variance: float) -> float:
    return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))


def test_autocovariances_of_first_order_are_those_of_the_closed_form() -> None:
    want = [0.25 / (1 - 0.49) * 0.7**k for k in range(6)]
    assert AR1.autocovariance(6).tolist() == pytest.approx(want)


def test_a_likelihood_is_the_product_of_its_conditionals() -> None:
    x = AR2.sample(3, 9, make_generator(0))
    for row, value in zip(x.tolist(), AR2.log_prob(x).tolist(), strict=True):
        start = AR2.log_prob(torch.tensor([row[:2]], dtype=torch.float64)).item()
        steps = [normal_log_prob(row[t], 1.2 * row[t - 1] - 0.5 * row[t - 2], 0.36) for t in range(2, 9)]
        assert value == pytest.approx(start + sum(steps))
        wrong = [normal_log_prob(row[t], 1.2 * row[t - 1], 0.36) for t in range(2, 9)]
        assert value != pytest.approx(start + sum(wrong), abs=1e-3)


def test_a_density_integrates_to_one() -> None:
    side = torch.linspace(-8, 8, 401, dtype=torch.float64)
    for law in (AR2, GARCH):
        p = law.log_prob(torch.cartesian_prod(side, side)).exp()
        assert float(p.sum()) * 0.04**2 == pytest.approx(1, abs=1e-3)


def test_forecasts_of_first_order_are_those_of_the_closed_form() -> None:
    mean, factor = AR1.conditional(torch.tensor([[3.0, -1.0, 2.0]]), 4)
    assert mean[0].tolist() == pytest.approx([2 * 0.7**h for h in range(1, 5)])
    spread = factor.square().sum(1).tolist()
    assert spread == pytest.approx([0.25 * (1 - 0.49**h) / (1 - 0.49) for h in range(1, 5)])
    quantiles = AR1.quantiles(torch.tensor([[2.0]]), 1, (0.5, 0.9))[0, 0].tolist()
    assert quantiles == pytest.approx([1.4, 1.4 + 0.5 * 1.2815515655])


@pytest.mark.parametrize("law", [AR2, seasonal(0.5, 0.8, 4, 0.5)])
def test_simulated_futures_have_the_quantiles_of_the_law(law: LinearProcess) -> None:
    past, n = law.sample(1, 12, make_generator(1)), 20_000
    paths = law.forecast(past, 5, n, make_generator(2))[0]
    for level in (0.1, 0.5, 0.9):
        share = (paths <= law.quantiles(past, 5, (level,))[0, :, 0]).double().mean(0)
        error = math.sqrt(level * (1 - level) / n)
        assert float((share - level).abs().max()) < 4.5 * error
        shifted = (paths + 0.1 <= law.quantiles(past, 5, (level,))[0, :, 0]).double().mean(0)
        assert float((shifted - level).abs().max()) > 4.5 * error


def test_a_seasonal_process_whitens_by_its_two_factors() -> None:
    x = seasonal(0.5, 0.8, 12, 0.45).sample(400, 60, make_generator(3))
    short = x[:, 1:] - 0.5 * x[:, :-1]
    noise = short[:, 12:] - 0.8 * short[:, :-12]
    assert float(noise.std()) == pytest.approx(0.45, rel=4 / math.sqrt(2 * noise.numel()))
    for lag in (1, 11, 12, 13):
        correlation = float((noise[:, lag:] * noise[:, :-lag]).mean() / noise.square().mean())
        assert abs(correlation) < 4.5 / math.sqrt(noise[:, lag:].numel())


@pytest.mark.parametrize(
    "make", [lambda: LinearProcess((1.0,)), lambda: LinearProcess((0.5, 0.6)), lambda: Garch(1, 0.5, 0.5)]
)
def test_a_process_without_a_stationary_law_is_refused(make) -> None:
    with pytest.raises(ValueError, match="not stationary"):
        make()


def test_a_variance_that_changes_is_scored_step_by_step() -> None:
    row, variance, nats = [0.5, -1.5, 0.2, 2.0], 1.0, 0.0
    for value in row:
        nats += normal_log_prob(value, 0.0, variance)
        variance = 0.1 + 0.3 * value**2 + 0.6 * variance
    x = torch.tensor([row])
    assert GARCH.log_prob(x).item() == pytest.approx(nats)
    assert GARCH.variances(x)[0, -1].item() == pytest.approx(variance)


def test_the_variance_of_a_forecast_returns_to_the_stationary_one() -> None:
    """E s^2_{t+h} = s + (alpha + beta)^(h - 1) (s^2_{t+1} - s) (Bollerslev 1986)."""
    past, n = torch.tensor([[0.1, 3.0]]), 40_000
    first = GARCH.variances(past)[0, -1].item()
    paths = GARCH.forecast(past, 6, n, make_generator(4))[0]
    for h in range(6):
        square = paths[:, h].square()
        error = float(square.std()) / math.sqrt(n)
        assert abs(float(square.mean()) - (1 + 0.9**h * (first - 1))) < 4.5 * error
    assert abs(float(paths[:, 0].square().mean()) - 1) > 0.5, "at first it is another one"


def test_likelihoods_equal_those_of_statsmodels() -> None:
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax").SARIMAX
    x = AR2.sample(1, 50, make_generator(5))
    assert sarimax(x[0].numpy(), order=(2, 0, 0)).loglike([1.2, -0.5, 0.36]) == pytest.approx(AR2.log_prob(x).item())
    law = seasonal(0.5, 0.8, 12, 0.45)
    x = law.sample(1, 60, make_generator(6))
    model = sarimax(x[0].numpy(), order=(1, 0, 0), seasonal_order=(1, 0, 0, 12))
    assert model.loglike([0.5, 0.8, 0.45**2]) == pytest.approx(law.log_prob(x).item(), rel=1e-6)
    ahead = model.smooth([0.5, 0.8, 0.45**2]).get_forecast(6)
    mean, factor = law.conditional(x, 6)
    assert ahead.predicted_mean == pytest.approx(mean[0].numpy(), rel=1e-5)
    assert ahead.se_mean**2 == pytest.approx(factor.square().sum(1).numpy(), rel=1e-5)
