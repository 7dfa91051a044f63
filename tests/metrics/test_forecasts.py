"""Scores of forecasts against closed forms, numerical integrals and brute force."""

import math

import pytest
import torch

from zoo.data.loader import make_generator
from zoo.metrics.forecasts import covered, crps_of_normal, crps_of_samples, interval, mean_pinball, pinball

CASES = [(0.0, 1.0, 0.3), (2.0, 0.5, 0.0), (-1.0, 3.0, 4.0)]


@pytest.mark.parametrize(("mean", "std", "y"), CASES)
def test_the_closed_form_is_the_integral_of_squared_distribution_functions(mean: float, std: float, y: float) -> None:
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    below = torch.special.ndtr((x - mean) / std)
    integral = float((below - (x >= y).double()).square().sum() * (x[1] - x[0]))
    found = float(crps_of_normal(*(torch.tensor(v, dtype=torch.float64) for v in (mean, std, y))))
    assert found == pytest.approx(integral, abs=1e-3)
    assert found != pytest.approx(abs(mean - y), abs=1e-2), "it is not the absolute error"


@pytest.mark.parametrize(("mean", "std", "y"), CASES)
def test_it_is_twice_the_integral_of_quantile_losses(mean: float, std: float, y: float) -> None:
    levels = (torch.arange(2_000, dtype=torch.float64) + 0.5) / 2_000
    quantiles = mean + std * torch.special.ndtri(levels)
    losses = torch.stack([pinball(q, torch.tensor(y), float(p)) for q, p in zip(quantiles, levels, strict=True)])
    found = float(crps_of_normal(*(torch.tensor(v, dtype=torch.float64) for v in (mean, std, y))))
    assert 2 * float(losses.mean()) == pytest.approx(found, abs=2e-3)


def test_the_score_of_samples_is_that_of_all_pairs() -> None:
    x, y = torch.randn(4, 7, generator=make_generator(0)).double(), torch.randn(4).double()
    pairs = (x[:, :, None] - x[:, None]).abs().sum((1, 2)) / (7 * 6)
    want = (x - y[:, None]).abs().mean(1) - pairs / 2
    assert crps_of_samples(x, y).tolist() == pytest.approx(want.tolist())
    with pytest.raises(ValueError, match="at least 2"):
        crps_of_samples(x[:, :1], y)


def test_the_score_of_few_samples_is_unbiased() -> None:
    n, y = 40_000, torch.tensor(0.3, dtype=torch.float64)
    x = torch.randn(n, 3, generator=make_generator(1)).double()
    exact = float(crps_of_normal(torch.tensor(0.0), torch.tensor(1.0), y))
    found = crps_of_samples(x, y.expand(n))
    error = float(found.std()) / math.sqrt(n)
    assert abs(float(found.mean()) - exact) < 4.5 * error
    spread = ((x - y).abs().mean(1) - found) * 2 / 3  # of the usual estimate, which divides by n^2, n = 3
    biased = found + spread / 2
    assert abs(float(biased.mean()) - exact) > 4.5 * error


def test_the_true_forecast_has_the_least_score() -> None:
    y = torch.randn(20_000, generator=make_generator(2)).double()
    scores = {s: float(crps_of_normal(torch.tensor(0.0), torch.tensor(s), y).mean()) for s in (0.7, 1.0, 1.4)}
    assert scores[1.0] == min(scores.values())
    assert scores[1.0] == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)  # E|X - Y| / 2 of normal numbers
    losses = {q: float(pinball(torch.tensor(q), y, 0.9).mean()) for q in (1.0, 1.2816, 1.6)}
    assert losses[1.2816] == min(losses.values())


def test_intervals_of_the_law_cover_their_share() -> None:
    samples, y = (torch.randn(*shape, generator=make_generator(3)) for shape in ((4000, 200), (4000,)))
    for share in (0.5, 0.8):
        assert float(covered(samples, y, share).double().mean()) == pytest.approx(share, abs=4.5 * 0.008)
        assert float(covered(0.7 * samples, y, share).double().mean()) < share - 0.08
    assert float(mean_pinball(samples, y, [0.1, 0.5, 0.9]).mean()) < float(
        mean_pinball(2 * samples, y, [0.1, 0.5, 0.9]).mean()
    )


@pytest.mark.parametrize(("n", "share"), [(9, 0.8), (9, 0.4), (7, 0.5), (4, 0.5)])
def test_few_samples_cover_their_share(n: int, share: float) -> None:
    """The share of a uniform law between two of its order statistics, as a Monte Carlo mean of exact probabilities."""
    samples = torch.rand(60_000, n, generator=make_generator(4), dtype=torch.float64)
    low, high = interval(samples, share)
    cover = high - low
    error = 4.5 * float(cover.std()) / math.sqrt(len(cover))
    assert float(cover.mean()) == pytest.approx(share, abs=error)
    ends = torch.quantile(samples, torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=torch.float64), dim=1)
    assert abs(float((ends[1] - ends[0]).mean()) - share) > 10 * error, "the control: the usual sample quantiles"


def test_two_samples_cover_a_third() -> None:
    low, high = interval(torch.tensor([[3.0, 1.0]]), 0.8)
    assert (low.item(), high.item()) == (1, 3)
