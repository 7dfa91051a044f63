"""The learned noise schedule: monotone, without influence on the expected bound, trained for its least variance."""

import pytest
import torch
from torch import nn

import zoo
from tests.nn.diffusion.gaussian import MEAN, VARIANCE, gaussian_denoiser
from zoo.core.spaces import Vector
from zoo.models.diffusion.diffusion import Diffusion
from zoo.nn.diffusion.path import Trigonometric
from zoo.nn.diffusion.schedule import LearnedSchedule
from zoo.nn.diffusion.target import coefficients


def bent(**settings) -> LearnedSchedule:
    """A schedule far from a straight line."""
    torch.manual_seed(0)
    schedule = LearnedSchedule(width=8, **settings).double()
    nn.init.normal_(schedule.heights, std=3.0)
    nn.init.constant_(schedule.slopes, 25.0)
    return schedule


def test_it_is_monotone_and_its_rate_is_its_derivative() -> None:
    schedule = bent(low=-6.0, high=4.0)
    u = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    log_snr, rate = schedule.log_snr(u)
    assert log_snr[[0, -1]].tolist() == pytest.approx([4.0, -6.0])
    assert (log_snr.diff() < 0).all()
    (slope,) = torch.autograd.grad(log_snr.sum(), u)
    torch.testing.assert_close(rate, -slope)
    assert rate.max() > 3 * rate.min(), "bent"
    start = LearnedSchedule().double().log_snr(u)[1]
    torch.testing.assert_close(start, torch.full_like(start, 18.0), rtol=0.2, atol=0)


def test_the_density_of_times_is_that_of_the_draw() -> None:
    schedule, path = bent(low=-6.0, high=4.0), Trigonometric()
    u = torch.linspace(0.001, 0.999, 2001, dtype=torch.float64)
    t, density = schedule.draw(u, path)
    torch.testing.assert_close(1 / density[1:-1], (t[2:] - t[:-2]) / (u[2:] - u[:-2]), rtol=1e-3, atol=0)


class Exact(Diffusion):
    """The output is that of the exact denoiser of a normal distribution."""

    def predict(self, z, at, y):
        x, e = gaussian_denoiser(self.path)(z, at.t.flatten())
        p, q = coefficients(self.target, at)
        return p * x + q * e + 0 * sum(parameter.sum() for parameter in self.denoiser.parameters())


def exact(schedule: LearnedSchedule) -> Exact:
    spec = zoo.DataSpec(Vector(2), name="gaussian")
    times = {"name": "learned", "low": schedule.low, "high": schedule.high, "width": 8}
    model = Exact(spec, path="trigonometric", target="x", weighting="elbo", times=times, denoiser="mlp").double()
    model.times.load_state_dict(schedule.state_dict())
    return model


def test_the_expected_loss_does_not_depend_on_the_shape() -> None:
    """It is the integral over the log-SNR of half the exact denoiser's error, for any schedule with these ends."""
    torch.manual_seed(1)
    x = MEAN + VARIANCE.sqrt() * torch.randn(100_000, 2, dtype=torch.float64)
    grid = torch.linspace(-6, 4, 10_001, dtype=torch.float64)[:, None]
    snr = grid.exp()
    integral = torch.trapezoid((0.5 * snr / (1 / VARIANCE + snr)).mean(1), grid[:, 0]).item()  # SNR Var(x | z)
    found = []
    straight = LearnedSchedule(low=-6.0, high=4.0, width=8).double()
    for schedule in (straight, bent(low=-6.0, high=4.0)):
        with torch.no_grad():
            losses = exact(schedule).squared_errors(x, None)[0]
        assert losses.mean().item() == pytest.approx(integral, abs=5 * losses.std().item() / len(x) ** 0.5)
        found.append(losses.var().item())
    assert abs(found[0] - found[1]) > 0.1 * found[0], "the variance depends on it"
    other = exact(bent(low=-6.0, high=3.0))
    with torch.no_grad():
        assert other.squared_errors(x, None)[0].mean().item() < 0.95 * integral, "the control: another end"


def test_the_schedules_gradient_is_that_of_the_squared_loss() -> None:
    model = Diffusion(
        zoo.DataSpec(Vector(2), name="points"),
        path="trigonometric", target="v", weighting="elbo", times={"name": "learned", "width": 8},
        denoiser={"name": "mlp", "width": 8, "depth": 1},
    ).double()  # fmt: skip
    for parameter in model.denoiser.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(32, 2, dtype=torch.float64)
    schedule, network = list(model.times.parameters()), list(model.denoiser.parameters())

    def losses() -> torch.Tensor:
        torch.manual_seed(0)
        return model.squared_errors(x, None)[0]

    losses().mean().backward()
    found = [p.grad.clone() for p in (*schedule, *network)]
    model.times.observe = lambda losses: model.times.losses.append(torch.full_like(losses, 0.5))  # 2 * 0.5 = 1: off
    plain = torch.autograd.grad(losses().mean(), [*schedule, *network])
    squared = torch.autograd.grad(losses().square().mean(), schedule)
    torch.testing.assert_close(found, [*squared, *plain[len(schedule) :]])
    assert not torch.allclose(found[1], plain[1], rtol=0.1), "the control: the gradient of the loss itself"


def test_training_the_schedule_lowers_the_variance() -> None:
    """With a network that is exact, the loss at a level is 1/2 rate(u) error(level): best if constant."""
    torch.manual_seed(0)
    model = exact(LearnedSchedule(low=-6.0, high=4.0, width=8).double())
    optimizer = torch.optim.Adam(model.times.parameters(), 0.05)

    def variance() -> float:
        x = MEAN + VARIANCE.sqrt() * torch.randn(20_000, 2, dtype=torch.float64)
        with torch.no_grad():
            return model.squared_errors(x, None)[0].var().item()

    before = variance()
    for _ in range(100):
        optimizer.zero_grad()
        x = MEAN + VARIANCE.sqrt() * torch.randn(500, 2, dtype=torch.float64)
        model.squared_errors(x, None)[0].mean().backward()
        optimizer.step()
    assert variance() < 0.85 * before
