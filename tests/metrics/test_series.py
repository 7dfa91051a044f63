"""Scores of generated series tell a law from one that differs in dependence alone."""

import math

import pytest
import torch

from zoo.data.loader import make_generator
from zoo.metrics.series import discriminative_score, lagged, predictive_score
from zoo.nn.distributions.processes import Garch, LinearProcess

AR2 = LinearProcess((1.2, -0.5), 0.6)


def windows(law, number: int, n: int = 300) -> torch.Tensor:
    return law.sample(n, 24, make_generator(number)).float()[..., None]


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """The same values, in an order of chance."""
    order = torch.rand(x.shape[:2], generator=make_generator(9)).argsort(1)
    return x.gather(1, order[..., None])


@pytest.mark.parametrize("law", [AR2, Garch(0.02, 0.5, 0.48)], ids=["ar", "garch"])
def test_a_classifier_finds_another_dependence_only(law) -> None:
    real, same = windows(law, 0), windows(law, 1)
    chance = 4.5 * 0.5 / math.sqrt(600)
    assert abs(discriminative_score(real, same)) < chance
    assert discriminative_score(real, shuffled(same)) > chance


def test_a_predictor_is_only_as_good_as_its_training_series() -> None:
    real, same = windows(AR2, 0), windows(AR2, 1)
    floor = 0.6 * math.sqrt(2 / math.pi) / math.sqrt(AR2.autocovariance(1).item())  # mean |e_t|, in deviations
    found, wrong = predictive_score(same, real), predictive_score(shuffled(same), real)
    assert 0.93 * floor < found < 1.25 * floor
    assert wrong > 1.3 * found


def test_lagged_rows_end_where_their_target_begins() -> None:
    x = torch.arange(24.0).view(1, 12, 2)
    rows, target = lagged(x, make_generator(0))
    assert rows.shape == (4, 16)
    assert torch.equal(rows[:, -2:] + 2, target)
