"""Power-function averages: the profile of the recursion, and averages made from stored ones."""

import numpy as np
import pytest
import torch

from zoo.nn.optim.power_ema import combine, decay, exponent, inner_product, weights

N = 4000  # updates


def profile(gamma: float, t: int) -> np.ndarray:
    """Weights of the first N updates in an average that is stored after t, by the recursion itself."""
    found = np.zeros(N)
    for now in range(1, t + 1):
        factor = decay(gamma, now, 1)
        found *= factor
        found[now - 1] += 1 - factor
    return found


@pytest.mark.parametrize("std", [0.02, 0.05, 0.1, 0.2])
def test_the_recursion_has_the_profile_and_its_relative_deviation(std: float) -> None:
    gamma, tau = exponent(std), np.arange(1, N + 1) / N
    found = profile(gamma, N)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found[N // 2 :] * N, (gamma + 1) * tau[N // 2 :] ** gamma, rtol=0.02, atol=1e-3)
    mean = (found * tau).sum()
    assert ((found * tau**2).sum() - mean**2) ** 0.5 == pytest.approx(std, rel=0.01)
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01), "of the paper, table 3"
    assert exponent(0.1) == pytest.approx(6.94, abs=0.01)


def test_inner_products_are_those_of_the_profiles() -> None:
    for one, two in [((7.0, 3000), (17.0, 4000)), ((17.0, 2500), (7.0, 2000)), ((7.0, 4000), (7.0, 4000))]:
        found = (profile(*one) * profile(*two)).sum() * max(one[1], two[1])
        assert inner_product(one, two) == pytest.approx(found, rel=0.01)


def test_a_stored_average_is_given_back() -> None:
    stored = [(exponent(std), t) for t in (1000.0, 2000.0, 3000.0) for std in (0.05, 0.1)]
    for i, wanted in enumerate(stored):
        np.testing.assert_allclose(weights(stored, wanted), np.eye(6)[i], atol=1e-6)


def test_the_sum_of_stored_profiles_is_near_the_wanted_one() -> None:
    """Twice: as numbers over time, and as weights that followed a known path."""
    times = list(range(500, N + 1, 500))
    stored = [(exponent(std), t) for t in times for std in (0.05, 0.1)]
    path = torch.sin(torch.arange(1, N + 1).double() / 300)  # of one weight
    states = [{"w": torch.tensor([(profile(g, t) * path.numpy()).sum()]), "n": torch.tensor(3)} for g, t in stored]
    for std in (0.06, 0.08, 0.15):
        wanted = profile(exponent(std), N)
        factors = weights([(g, float(t)) for g, t in stored], (exponent(std), float(N)))
        assert sum(factors) == pytest.approx(1)
        made = sum(factor * profile(g, t) for factor, (g, t) in zip(factors, stored, strict=True))
        assert np.abs(made - wanted).sum() < 0.06
        assert np.abs(profile(exponent(0.1), N) - wanted).sum() > 0.2, "the control: the nearest stored one"
        combined = combine(states, factors)
        assert combined["w"].item() == pytest.approx((wanted * path.numpy()).sum(), abs=0.02)
        assert combined["n"].item() == 3
