"""Distributions of the next value of a series against those of torch and scipy."""

import pytest
import torch
from scipy import stats
from torch.distributions import NegativeBinomial, Normal, StudentT
from torch.nn import functional as F

from zoo.data.loader import make_generator
from zoo.nn.distributions.emissions import EMISSIONS, LEAST

UNIT = torch.tensor(3.0, dtype=torch.float64)
PARAMS = torch.tensor([0.4, -0.5, 1.0], dtype=torch.float64)


def oracle(name: str):
    """The same distribution in torch, and its distribution function in scipy."""
    scale = UNIT * (F.softplus(PARAMS[1]) + LEAST)
    if name == "gaussian":
        return Normal(UNIT * 0.4, scale), stats.norm(1.2, scale.item()).cdf
    if name == "student_t":
        df = 2 + F.softplus(PARAMS[2])
        return StudentT(df, UNIT * 0.4, scale), stats.t(df.item(), 1.2, scale.item()).cdf
    mean, shape = UNIT * F.softplus(PARAMS[0]), UNIT.sqrt() / F.softplus(PARAMS[1])
    p = (mean / (mean + shape)).item()
    return NegativeBinomial(shape, torch.tensor(p)), stats.nbinom(shape.item(), 1 - p).cdf


@pytest.mark.parametrize("name", EMISSIONS)
def test_log_probabilities_equal_those_of_torch(name: str) -> None:
    emission = EMISSIONS[name]()
    x = torch.arange(0.0, 12, dtype=torch.float64)
    found = emission.log_prob(PARAMS[: emission.n_params], UNIT, x)
    assert found.tolist() == pytest.approx(oracle(name)[0].log_prob(x).tolist())
    other = emission.log_prob(PARAMS[: emission.n_params], 1.1 * UNIT, x)
    assert found.tolist() != pytest.approx(other.tolist(), rel=1e-3)


@pytest.mark.parametrize("name", EMISSIONS)
def test_probabilities_sum_to_one(name: str) -> None:
    emission = EMISSIONS[name]()
    step = 1.0 if emission.counts else 0.05
    x = torch.arange(0.0 if emission.counts else -2000.0, 2000.0, step, dtype=torch.float64)
    p = emission.log_prob(PARAMS[: emission.n_params], UNIT, x).exp()
    assert float(p.sum()) * step == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", EMISSIONS)
def test_samples_follow_the_distribution(name: str) -> None:
    """Largest distance of the distribution functions, with the 1 - 1e-5 quantile of Kolmogorov's distribution."""
    emission, n = EMISSIONS[name](), 20_000
    u = torch.rand(n, 2, generator=make_generator(0))
    drawn = emission.from_uniform(PARAMS[: emission.n_params].expand(n, -1), UNIT.expand(n), u)
    x = torch.arange(-5.0, 30.0, 1.0 if emission.counts else 0.25, dtype=torch.float64)
    cdf = torch.as_tensor(oracle(name)[1](x.numpy()))
    distance = lambda values: float(((values[:, None] <= x).double().mean(0) - cdf).abs().max())  # noqa: E731
    assert distance(drawn) < 2.47 / n**0.5
    assert distance(drawn + (1.0 if emission.counts else 0.3)) > 2.47 / n**0.5


@pytest.mark.parametrize("spread", [-10.0, -5.0, 0.0])
@pytest.mark.parametrize("unit", [1.0, 100.0, 10_000.0])
def test_counts_that_are_nearly_poisson_keep_their_precision(spread: float, unit: float) -> None:
    """Single precision against scipy: the gamma functions of a large shape cancel."""
    emission, count = EMISSIONS["negative_binomial"](), torch.tensor([0.5, 1.0, 1.5]).mul(unit).round()
    params = torch.tensor([0.5413, spread]).expand(3, 2).clone().requires_grad_()  # mean of 1 unit
    found = emission.log_prob(params, torch.tensor(unit), count)
    assert found.dtype == torch.float32
    mean, shape = unit * F.softplus(params[:, 0].double()), unit**0.5 / F.softplus(params[:, 1].double()).clamp(1e-4)
    want = stats.nbinom.logpmf(*(v.detach().double().numpy() for v in (count, shape, shape / (shape + mean))))
    assert found.tolist() == pytest.approx(want.tolist(), rel=1e-5, abs=1e-5)
    single = [v.float() for v in (mean, shape)]
    parts = torch.lgamma(count + single[1]) - torch.lgamma(single[1]) - torch.lgamma(count + 1)
    parts = parts - single[1] * torch.log1p(single[0] / single[1]) + count * (single[0] / sum(single)).log()
    if spread < 0 and unit > 1:
        assert (parts - torch.tensor(want)).abs().max() > 1e-4, "the control: the formula in single precision"
    slope = torch.autograd.grad(found.sum(), params)[0]
    exact = torch.autograd.functional.jacobian(
        lambda p: emission.log_prob(p, torch.tensor(unit).double(), count.double()).sum(), params.detach().double()
    )
    torch.testing.assert_close(slope.double(), exact, rtol=1e-4, atol=1e-6)
