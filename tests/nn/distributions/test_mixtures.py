"""Mixtures against scikit-learn, torch's distributions, quadrature and their own samples."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture as EM
from torch import distributions as D

from zoo.nn.distributions.mixtures import GaussianMixture, LearnedMixture


def two_clusters(n: int = 600) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, n, 2, generator=generator)
    skew = torch.tensor([[0.5, 0.0], [0.8, 0.2]])
    return torch.cat([left @ skew.T - 3, 0.3 * right + 2])


def fitted(points: torch.Tensor, components: int) -> GaussianMixture:
    mixture = GaussianMixture(points.shape[1], components)
    mixture.fit(points)
    return mixture


def test_log_density_agrees_with_scikit_learn():
    points = two_clusters()
    mixture = fitted(points, 2)
    centre, scale = points.double().mean(0), points.double().std(0, correction=0)
    em = EM(2, reg_covar=1e-3, random_state=0).fit(((points - centre) / scale).numpy())
    want = torch.from_numpy(em.score_samples(((points - centre) / scale).numpy())) - scale.log().sum()
    torch.testing.assert_close(mixture.log_prob(points).double(), want, rtol=1e-3, atol=1e-3)


def test_log_density_agrees_with_torch():
    mixture = fitted(two_clusters(), 3)
    own = D.MixtureSameFamily(
        D.Categorical(mixture.weights), D.MultivariateNormal(mixture.means, scale_tril=mixture.factors)
    )
    points = torch.randn(50, 2)
    torch.testing.assert_close(mixture.log_prob(points), own.log_prob(points), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["fitted", "learned"])
def test_samples_have_the_density_that_log_prob_says(kind):
    """The mean of log p over samples equals its integral; so do the first two moments."""
    torch.manual_seed(0)
    mixture = fitted(two_clusters(), 2) if kind == "fitted" else LearnedMixture(2, 5)
    if isinstance(mixture, LearnedMixture):
        torch.nn.init.normal_(mixture.logits)
    side = torch.linspace(-14, 14, 401)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        log_p = mixture.log_prob(grid).double()
        draws = mixture.sample(40_000, torch.Generator().manual_seed(1))
        mass = log_p.exp() * float(side[1] - side[0]) ** 2
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
        for statistic, at_draws in (
            (log_p, mixture.log_prob(draws)),
            *((grid[:, i].double(), draws[:, i]) for i in (0, 1)),
            *((grid.prod(1).double(), draws.prod(1)),),
        ):
            error = float(at_draws.std()) / math.sqrt(len(draws))
            assert float(at_draws.mean()) == pytest.approx(float((mass * statistic).sum()), abs=5 * error)


def test_fit_is_repeatable_and_leaves_the_random_state_alone():
    points = two_clusters()
    before = torch.get_rng_state()
    first, second = fitted(points, 4), fitted(points, 4)
    assert torch.equal(before, torch.get_rng_state())
    for name, buffer in first.state_dict().items():
        assert torch.equal(buffer, second.state_dict()[name])


def test_fewer_points_than_components():
    mixture = fitted(torch.randn(3, 2), 8)
    assert mixture.fitted
    assert int((mixture.weights > 0).sum()) == 3
    assert mixture.sample(100).isfinite().all()
    assert mixture.log_prob(torch.zeros(1, 2)).isfinite().all()


def test_dead_coordinates_and_scales_do_no_harm():
    """A latent that never moves, and one in the thousands, as unconstrained encoders have them."""
    points = torch.stack([torch.zeros(200), 1e4 * torch.randn(200), 1e-3 * torch.randn(200)], 1)
    draws = fitted(points, 4).sample(2000, torch.Generator().manual_seed(0))
    assert draws[:, 0].abs().max() < 1e-4
    for i in (1, 2):
        assert float(draws[:, i].std() / points[:, i].std()) == pytest.approx(1, abs=0.1)


def test_state_dict_carries_the_fit():
    mixture, other = fitted(two_clusters(), 2), GaussianMixture(2, 2)
    assert not other.fitted
    other.load_state_dict(mixture.state_dict())
    assert other.fitted
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(mixture.sample(5, seeds[0]), other.sample(5, seeds[1]))


def test_learned_mixture_agrees_with_torch_and_accepts_leading_dimensions():
    torch.manual_seed(0)
    mixture = LearnedMixture(3, 4)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter)
    own = D.MixtureSameFamily(
        D.Categorical(logits=mixture.logits),
        D.Independent(D.Normal(mixture.means, mixture.log_std.exp()), 1),
    )
    z = torch.randn(2, 7, 3)
    torch.testing.assert_close(mixture.log_prob(z), own.log_prob(z), rtol=1e-4, atol=1e-4)
