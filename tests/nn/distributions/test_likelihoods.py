"""Every likelihood against a closed form, a sum over all outcomes, or its own samples."""

import math

import pytest
import torch
from torch import distributions as D

from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.nn.distributions.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian

BINARY = DataSpec(Image(1, 28, 28, levels=2), name="binary")
GREY = DataSpec(Image(1, 2, 3, levels=256), name="grey")
POINTS = DataSpec(Vector(3), name="points")


def every_level(spec: DataSpec, dtype: torch.dtype) -> torch.Tensor:
    """A batch with one constant image for each level: (levels, 1, 1, 1)."""
    return torch.linspace(0, 1, spec.image.levels, dtype=dtype).view(-1, 1, 1, 1)


def test_undecided_bernoulli_on_binary_28x28_is_784_ln_2():
    x = torch.randint(0, 2, (5, 1, 28, 28)).float()
    nats = -Bernoulli(BINARY).log_prob(torch.zeros(5, 1, 28, 28), x)
    torch.testing.assert_close(nats, torch.full((5,), 784 * math.log(2)))


def test_uniform_over_256_levels_is_8_bits_per_dimension():
    x = torch.randint(0, 256, (5, 1, 2, 3)) / 255
    nats = -Categorical(GREY).log_prob(torch.zeros(5, 256, 2, 3), x)
    torch.testing.assert_close(nats / (6 * math.log(2)), torch.full((5,), 8.0))


def test_bernoulli_on_grey_pixels_is_least_at_the_pixels_and_not_zero_there():
    likelihood, x = Bernoulli(GREY), torch.rand(4, 1, 2, 3).clamp(0.01, 0.99)
    entropy = D.Bernoulli(probs=x).entropy().flatten(1).sum(1)
    torch.testing.assert_close(-likelihood.log_prob(x.logit(), x), entropy)
    assert (-likelihood.log_prob(x.logit() + 0.3, x) > entropy).all()


@pytest.mark.parametrize("extreme", [0.0, 60.0, 1e4, -1e4])
def test_bernoulli_is_finite_at_extreme_logits_and_exact(extreme):
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    spec = DataSpec(Image(1, 1, 1, levels=2))
    nats = -Bernoulli(spec).log_prob(torch.full((2, 1, 1, 1), extreme), x)
    want = torch.nn.functional.softplus(torch.tensor([extreme, -extreme], dtype=torch.float64))
    torch.testing.assert_close(nats.double(), want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("variance", ["shared", "fixed", "per_value"])
def test_gaussian_agrees_with_torch(variance):
    likelihood = Gaussian(POINTS, variance=variance, std=0.7).double()
    params = torch.randn(5, likelihood.params_per_value * 3, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    if variance == "per_value":
        start = 6 * math.atanh(math.log(0.7) / 6)
        mean, std = params[:, :3], (6 * torch.tanh((params[:, 3:] + start) / 6)).exp()
    else:
        mean, std = params, torch.tensor(0.7, dtype=torch.float64)
    # The shared parameter was made in single precision.
    torch.testing.assert_close(
        likelihood.log_prob(params, x), D.Normal(mean, std).log_prob(x).sum(1), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(likelihood.mean(params), mean)


def test_best_shared_variance_is_the_mean_squared_error():
    """sigma^2 = MSE makes the gradient vanish (Rybkin et al. 2020); another value does not."""
    likelihood = Gaussian(POINTS).double()
    params, x = torch.zeros(200, 3, dtype=torch.float64), 0.3 * torch.randn(200, 3, dtype=torch.float64)
    for factor, vanishes in ((1.0, True), (1.1, False)):
        log_std = 0.5 * math.log(factor * x.square().mean())
        with torch.no_grad():
            likelihood.raw_log_std.fill_(6 * math.atanh(log_std / 6))
        (gradient,) = torch.autograd.grad(likelihood.log_prob(params, x).mean(), likelihood.raw_log_std)
        assert (gradient.abs() < 1e-9) == vanishes


def test_gaussian_density_stays_finite_on_constant_data():
    likelihood = Gaussian(POINTS, variance="per_value")
    params = torch.tensor([[0.0, 0.0, 0.0, -1e6, -1e6, -1e6]], requires_grad=True)
    nats = likelihood.log_prob(params, torch.zeros(1, 3))
    assert float(nats.detach()) == pytest.approx(3 * (6 - 0.5 * math.log(2 * math.pi)), rel=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("params", [(0.0, 0.0), (-3.0, 5.0), (0.5, -9.0), (0.2, 100.0), (40.0, 0.0), (-0.2, -4.0)])
@pytest.mark.parametrize("kind", [DiscretisedLogistic, Categorical])
def test_probabilities_of_all_levels_sum_to_one(kind, params, levels):
    spec = DataSpec(Image(1, 1, 1, levels=levels))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        likelihood = kind(spec)
        raw = torch.tensor(params, dtype=dtype).repeat(-(-likelihood.params_per_value // 2))[
            : likelihood.params_per_value
        ]
        raw = raw.view(1, -1, 1, 1).expand(levels, -1, 1, 1)
        nats = likelihood.log_prob(raw, every_level(spec, dtype))
        assert nats.isfinite().all()
        assert abs(float(nats.exp().sum()) - 1) < tolerance


def test_discretised_logistic_is_the_difference_of_distribution_functions():
    """Against the textbook formula in double precision, where that does not cancel."""
    spec = DataSpec(Image(1, 1, 1, levels=17))
    raw = torch.tensor([0.1, 0.5], dtype=torch.float64).view(1, 2, 1, 1).expand(17, 2, 1, 1)
    x = every_level(spec, torch.float64)
    scale = 7 * math.tanh((0.5 - 2) / 7)
    edges = torch.cat([x.flatten() - 1 / 32, x.new_tensor([1 + 1 / 32])])
    cdf = ((edges - 0.6) / math.exp(scale)).sigmoid()
    cdf[0], cdf[-1] = 0, 1
    torch.testing.assert_close(DiscretisedLogistic(spec).log_prob(raw, x), cdf.diff().log())


def test_discretised_logistic_far_from_its_location_is_right_in_single_precision():
    """Where sigmoid(a) - sigmoid(b) is 0 in single precision, the logarithm is linear in the distance."""
    spec = DataSpec(Image(1, 1, 1, levels=256))
    raw = torch.tensor([50.0, 0.0], requires_grad=True)
    nats = DiscretisedLogistic(spec).log_prob(raw.view(1, 2, 1, 1), torch.full((1, 1, 1, 1), 0.4))
    exact = DiscretisedLogistic(spec).log_prob(
        raw.detach().double().view(1, 2, 1, 1), torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    )
    assert float(nats.detach()) < -300
    torch.testing.assert_close(nats.detach().double(), exact, rtol=1e-5, atol=0)
    nats.backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("kind", [DiscretisedLogistic, Categorical])
def test_mean_and_samples_are_those_of_the_probabilities(kind):
    spec = DataSpec(Image(2, 1, 2, levels=5))
    likelihood = kind(spec)
    torch.manual_seed(0)
    params = torch.randn(1, likelihood.params_per_value * 2, 1, 2, dtype=torch.float64)
    values = torch.linspace(0, 1, 5, dtype=torch.float64)
    probs = []
    for level in values:  # one value at a time, the others summed out: compare differences of joint log-probabilities
        x = torch.zeros(4, 2, 1, 2, dtype=torch.float64)
        x.view(4, 4)[torch.arange(4), torch.arange(4)] = level
        probs.append(likelihood.log_prob(params.expand(4, -1, -1, -1), x))
    marginal = torch.stack(probs).softmax(0)  # (levels, 4 values)
    torch.testing.assert_close(likelihood.mean(params).flatten(), values @ marginal)
    n = 20_000
    draws = likelihood.sample(params.expand(n, -1, -1, -1), torch.Generator().manual_seed(1)).flatten(1)
    for i, value in enumerate(values):
        frequency = (draws - value).abs().lt(1e-6).double().mean(0)
        error = (marginal[i] * (1 - marginal[i]) / n).sqrt()
        assert (frequency - marginal[i]).abs().le(5 * error + 1e-9).all()


@pytest.mark.parametrize("kind", [Bernoulli, Gaussian, DiscretisedLogistic, Categorical])
def test_interface(kind):
    spec = DataSpec(Image(3, 4, 5, levels=17))
    likelihood = kind(spec)
    params = torch.randn(6, *likelihood.params_shape)
    x = torch.randint(0, 17, (6, 3, 4, 5)) / 16
    assert likelihood.params_shape == (3 * likelihood.params_per_value, 4, 5)
    assert likelihood.log_prob(params, x).shape == (6,)
    assert likelihood.mean(params).shape == x.shape
    first, second = (likelihood.sample(params, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == x.shape
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [Bernoulli, Gaussian, DiscretisedLogistic, Categorical])
def test_under_autocast_nats_are_summed_in_single_precision(kind):
    spec = DataSpec(Image(1, 28, 28, levels=17))
    likelihood = kind(spec)
    params = torch.randn(4, *likelihood.params_shape).bfloat16()
    x = torch.randint(0, 17, (4, 1, 28, 28)) / 16
    with torch.autocast("cpu", torch.bfloat16):
        low = likelihood.log_prob(params, x)
        mean = likelihood.mean(params)
    assert low.dtype == mean.dtype == torch.float32
    torch.testing.assert_close(low, likelihood.log_prob(params.float(), x))


@pytest.mark.parametrize("kind", [Bernoulli, DiscretisedLogistic, Categorical])
def test_pixels_are_asked_for_where_needed(kind):
    with pytest.raises(ZooError, match=r"needs pixels.*points.*model.likelihood=gaussian"):
        kind(POINTS)


@pytest.mark.parametrize("levels", [2, 17, 256, 1024])
def test_the_sharpest_logistic_holds_all_of_a_level(levels: int) -> None:
    spec = DataSpec(Image(1, 1, 1, levels=levels), name="pixel")
    likelihood = DiscretisedLogistic(spec)
    level = levels // 2
    x = torch.full((1, 1, 1, 1), level / (levels - 1))
    params = torch.stack([x[:, 0] - 0.5, torch.full((1, 1, 1), -1e4)], 1)
    assert float(likelihood.log_prob(params, x).exp()) > 0.999


@pytest.mark.parametrize("std", [1e-4, 0.001, 0.2, 1.0, 5.0, 1e4])
@pytest.mark.parametrize("variance", ["shared", "per_value", "fixed"])
def test_a_gaussian_starts_at_the_given_deviation(variance: str, std: float) -> None:
    likelihood = Gaussian(DataSpec(Vector(3), name="three"), variance=variance, std=std)
    params = torch.zeros(1, *likelihood.params_shape)
    _, log_std = likelihood.mean_and_log_std(params)
    assert float(log_std.detach().exp().mean()) == pytest.approx(std, rel=1e-4)
