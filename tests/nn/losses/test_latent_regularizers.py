"""Penalties on latents against sums, enumeration, integrals and closed forms."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from zoo.core.spaces import Vector
from zoo.core.spec import DataSpec
from zoo.metrics.latent import aggregate_match
from zoo.nn.distributions.normal import log_normal
from zoo.nn.distributions.posteriors import GaussianPosterior
from zoo.nn.distributions.priors import StandardPrior
from zoo.nn.losses.latent_regularizers import (
    DIPRegularizer,
    FactorRegularizer,
    MMDRegularizer,
    TotalCorrelation,
    log_aggregate,
    shuffle_dimensions,
    squared_mmd,
)


def build(kind, dim: int, **options):
    family = GaussianPosterior(dim)
    return kind(dim, family, StandardPrior(dim, family, DataSpec(Vector(2), name="points")), **options)


def posteriors(n: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws, means and log standard deviations, float64 (n, dim)."""
    generator = torch.Generator().manual_seed(seed)
    mean, raw, noise = torch.randn(3, n, dim, generator=generator, dtype=torch.float64)
    log_std = 0.3 * raw - 0.7
    return mean + log_std.exp() * noise, mean, log_std


def test_with_all_data_in_the_batch_the_densities_are_sums() -> None:
    z, mean, log_std = posteriors(7, 3)
    joint, marginals = log_aggregate(z, mean, log_std, torch.tensor(7))
    for i in range(7):
        table = torch.stack([log_normal(z[i, :, None], mean[j, :, None], log_std[j, :, None]) for j in range(7)])
        torch.testing.assert_close(joint[i].exp(), table.sum(1).exp().mean())
        torch.testing.assert_close(marginals[i], table.exp().mean(0).log().sum())


def test_the_density_is_unbiased_over_all_batches() -> None:
    """Mean over every batch with row 0, by enumeration. Weights of other implementations are not unbiased."""
    n, b = 7, 3
    z, mean, log_std = posteriors(n, 2, seed=1)
    exact = torch.stack([log_normal(z[0], mean[j], log_std[j]) for j in range(n)]).exp().mean()
    found, column, batch_only = [], [], []
    for others in itertools.combinations(range(1, n), b - 1):
        rows = torch.tensor([0, *others])
        found.append(log_aggregate(z[rows], mean[rows], log_std[rows], torch.tensor(n))[0][0].exp())
        densities = torch.stack([log_normal(z[0], mean[j], log_std[j]) for j in rows]).exp()
        batch_only.append(densities.mean())  # takes the batch for the data
        weights = torch.full((b, b), 1 / (b - 1), dtype=torch.float64)
        weights.view(-1)[::b] = 1 / n  # the first column and not the diagonal
        weights.view(-1)[1::b] = (n - b + 1) / (n * (b - 1))
        column.append((weights[1] * densities).sum())
    torch.testing.assert_close(torch.stack(found).mean(), exact, rtol=1e-12, atol=0)
    for wrong in (column, batch_only):
        assert abs(float(torch.stack(wrong).mean() / exact) - 1) > 0.02


def test_independent_latents_have_no_total_correlation() -> None:
    """Means on a grid, with equal deviations: the aggregate is a product, row by row."""
    mean = torch.cartesian_prod(*[torch.tensor([-1.0, 0.2, 1.5], dtype=torch.float64)] * 3)
    log_std = torch.full_like(mean, -0.5)
    z = mean + log_std.exp() * torch.randn(mean.shape, dtype=torch.float64)
    joint, marginals = log_aggregate(z, mean, log_std, torch.tensor(len(z)))
    torch.testing.assert_close(joint, marginals, rtol=1e-12, atol=1e-12)
    mean[:, 1] = mean[:, 0]  # negative control: two equal means
    z = mean + log_std.exp() * torch.randn(mean.shape, dtype=torch.float64)
    joint, marginals = log_aggregate(z, mean, log_std, torch.tensor(len(z)))
    assert (joint - marginals).mean() > 0.1


def test_total_correlation_of_two_clusters_is_the_integral() -> None:
    """The aggregate is half N((1, 1), s^2) and half N((-1, -1), s^2)."""
    std, n = 0.6, 1200
    sign = torch.ones(n, dtype=torch.float64)
    sign[::2] = -1
    mean = torch.stack([sign, sign], 1)
    params = torch.cat([mean, torch.full_like(mean, 6 * math.atanh(math.log(std) / 6))], 1)
    torch.manual_seed(0)
    z = mean + std * torch.randn(n, 2, dtype=torch.float64)
    found = build(TotalCorrelation, 2, weight=3.0)(z, params)

    side = torch.linspace(-5, 5, 401, dtype=torch.float64)
    points, area = torch.cartesian_prod(side, side), (10 / 400) ** 2
    at = torch.tensor(math.log(std), dtype=torch.float64)
    ones = torch.ones(1, dtype=torch.float64)

    def log_mixture(x: torch.Tensor) -> torch.Tensor:
        both = [log_normal(x, s * ones.expand(x.shape[1]), at.expand(x.shape[1])) for s in (1.0, -1.0)]
        return torch.logaddexp(*both) - math.log(2)

    joint = log_mixture(points)
    gap = joint - log_mixture(points[:, :1]) - log_mixture(points[:, 1:])
    exact = float((joint.exp() * gap).sum() * area)
    spread = float((joint.exp() * gap.square()).sum() * area - exact**2) ** 0.5
    assert float(found["total_correlation"]) == pytest.approx(exact, abs=4 * spread / math.sqrt(n))
    assert exact > 20 * spread / math.sqrt(n)  # zero would fail
    assert float(found["penalty"]) == pytest.approx(3 * float(found["total_correlation"]))


def test_the_size_of_the_data_counts() -> None:
    """The own posterior weighs 1 / N."""
    z, mean, log_std = posteriors(4, 2)
    penalty = build(TotalCorrelation, 2)
    params = torch.cat([mean, log_std], 1)
    before = penalty(z, params)["total_correlation"]
    penalty.set_size(1000)
    assert penalty(z, params)["total_correlation"] != before
    joint, _ = log_aggregate(z, mean, log_std, torch.tensor(1000))
    own = log_normal(z, mean, log_std)
    others = torch.stack([log_normal(z[0], mean[j], log_std[j]) for j in (1, 2, 3)]).exp().sum()
    torch.testing.assert_close(joint[0].exp(), own[0].exp() / 1000 + 999 / 3000 * others)


def test_shuffling_keeps_each_dimension_and_ends_their_dependence() -> None:
    torch.manual_seed(0)
    a = torch.randn(2000, 1)
    z = torch.cat([a, a, -a], 1)
    shuffled = shuffle_dimensions(z)
    assert torch.equal(shuffled.sort(0)[0], z.sort(0)[0])
    off = shuffled.T.corrcoef() - torch.eye(3)
    assert off.abs().max() < 4 / math.sqrt(2000)


def test_the_discriminator_finds_the_total_correlation_of_a_gaussian() -> None:
    """-log(1 - rho^2) / 2 nats."""
    torch.manual_seed(0)
    penalty, rho = build(FactorRegularizer, 2, width=64, depth=2), 0.9
    optimizer = torch.optim.Adam(penalty.parameters(), 3e-3)

    def correlated(n: int) -> torch.Tensor:
        a, b = torch.randn(2, n)
        return torch.stack([a, rho * a + math.sqrt(1 - rho**2) * b], 1)

    late = []
    for step in range(300):
        terms = penalty(correlated(1024), torch.zeros(1))
        optimizer.zero_grad()
        terms["penalty"].backward()
        optimizer.step()
        if step >= 200:
            late.append(float(terms["total_correlation"]))
    exact = -0.5 * math.log(1 - rho**2)
    assert sum(late) / len(late) == pytest.approx(exact, rel=0.07)
    with torch.no_grad():  # negative control: independent latents
        assert abs(float(penalty(torch.randn(20_000, 2), torch.zeros(1))["total_correlation"])) > 0.5


def test_the_players_of_factor_vae_do_not_share_gradients() -> None:
    """Latents lower the total correlation; the discriminator lowers its own loss; the value is that of the former."""
    torch.manual_seed(0)
    penalty, z = build(FactorRegularizer, 3, width=8, depth=1, weight=7.0), torch.randn(9, 3, requires_grad=True)
    terms = penalty(z, torch.zeros(1))
    torch.testing.assert_close(terms["penalty"], 7 * terms["total_correlation"])
    terms["penalty"].backward()
    (expected,) = torch.autograd.grad(7 * penalty.discriminator(z).mean(), z)
    torch.testing.assert_close(z.grad, expected)
    own = [p.grad for p in penalty.parameters()]
    torch.manual_seed(1)
    again = penalty(z.detach(), torch.zeros(1))
    assert not again["total_correlation"].requires_grad  # the discriminator is fixed there
    torch.manual_seed(1)
    real, fake = penalty.discriminator(z.detach()), penalty.discriminator(shuffle_dimensions(z.detach()))
    entropy = -0.5 * (F.logsigmoid(real) + F.logsigmoid(-fake)).mean()
    torch.testing.assert_close(again["loss_discriminator"], entropy.detach())
    expected = torch.autograd.grad(entropy, list(penalty.parameters()))
    for gradient, right in zip(
        torch.autograd.grad(again["penalty"], list(penalty.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(gradient, right)
    assert all(g.isfinite().all() for g in own)


@pytest.mark.parametrize("variant", ["i", "ii"])
def test_dip_is_zero_exactly_for_a_covariance_of_one(variant: str) -> None:
    log_std = math.log(0.5)
    scale = 1.0 if variant == "i" else math.sqrt(1 - 0.25)
    mean = scale * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    params = torch.cat([mean, torch.full_like(mean, 6 * math.atanh(log_std / 6))], 1)
    penalty = build(DIPRegularizer, 2, variant=variant, weight=2.0, diagonal_weight=5.0)
    assert float(penalty(mean, params)["penalty"]) == pytest.approx(0, abs=1e-12)
    mean[:, 1] = mean[:, 0]  # covariance scale^2 twice
    params = torch.cat([mean, params[:, 2:]], 1)
    assert float(penalty(mean, params)["penalty"]) == pytest.approx(2 * 2 * scale**4)
    params[:, :2] *= 2  # each variance becomes 4 scale^2 + the rest
    rest = 0.25 if variant == "ii" else 0.0
    expected = 2 * 2 * (4 * scale**2) ** 2 + 5 * 2 * (4 * scale**2 + rest - 1) ** 2
    assert float(penalty(mean, params)["penalty"]) == pytest.approx(expected)


def test_mmd_of_two_gaussians_is_the_closed_form() -> None:
    """N(m, I) against N(0, I) under exp(-|a - b|^2 / 2 g) with g = D."""
    torch.manual_seed(0)
    dim, n, shift = 3, 16, torch.tensor([0.8, -0.4, 0.0], dtype=torch.float64)
    kernel = float(dim)
    exact = 2 * (kernel / (kernel + 2)) ** (dim / 2) * (1 - math.exp(-float(shift @ shift) / (2 * (kernel + 2))))
    pairs = torch.randn(2000, 2, n, dim, dtype=torch.float64)
    for moved, value in ((shift, exact), (torch.zeros(3, dtype=torch.float64), 0.0)):
        found = torch.stack([squared_mmd(x + moved, y, "rbf") for x, y in pairs])
        error = float(found.std()) / math.sqrt(len(found))
        assert float(found.mean()) == pytest.approx(value, abs=4 * error)
        assert exact > 8 * error
        biased = float(found.mean()) + 2 * (1 - (kernel / (kernel + 2)) ** (dim / 2)) / n  # with the diagonal
        assert abs(biased - value) > 8 * error  # negative control


def test_mmd_has_the_kernel_of_the_metric_and_a_gradient() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 5, requires_grad=True), torch.randn(40, 5)
    found = squared_mmd(x, y, "imq")
    assert float(found) == pytest.approx(aggregate_match(x.detach(), y), rel=1e-4)
    found.backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert float(squared_mmd(x[:1], y[:1], "imq")) == 0


def test_mmd_of_latents_falls_as_they_approach_the_prior() -> None:
    torch.manual_seed(0)
    penalty = build(MMDRegularizer, 4)
    values = [float(penalty(s * torch.randn(400, 4), torch.zeros(1))["mmd"]) for s in (0.1, 0.5, 1.0)]
    assert values[0] > values[1] > 20 * abs(values[2])
