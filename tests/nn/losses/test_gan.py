"""Losses against closed forms; penalties against critics whose gradients are known."""

import math

import pytest
import torch
from torch import nn

from zoo.nn.losses import gan as adv
from zoo.nn.losses.gan import GAN_LOSSES, gradient_penalty, input_gradient, interpolation_weights, r1_penalty

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        ("non_saturating", 2 * LN2, LN2),
        ("hinge", 2.0, 0.0),
        ("least_squares", 0.5, 0.5),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", LN2, LN2),
    ],
)
def test_constants_where_the_discriminator_is_zero(name, d, g):
    zero = torch.zeros(7, dtype=torch.float64)
    assert float(GAN_LOSSES[name].discriminator(zero, zero)) == pytest.approx(d, abs=1e-6)
    assert float(GAN_LOSSES[name].generator(zero, zero)) == pytest.approx(g, abs=1e-6)


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_losses_are_means_over_the_batch(name):
    real, fake = torch.randn(2, 6, dtype=torch.float64)
    for loss in GAN_LOSSES[name][:2]:
        torch.testing.assert_close(loss(real.repeat(2), fake.repeat(2)), loss(real, fake))


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_each_player_pushes_its_own_way(name):
    """At D = 0: the discriminator raises real and lowers fake logits, the generator raises fake ones."""
    real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(GAN_LOSSES[name].discriminator(real, fake), (real, fake), allow_unused=True)
    assert (up < 0).all()
    assert down is None or (down >= 0).all()  # least squares has its minimum at 0
    (gradient,) = torch.autograd.grad(GAN_LOSSES[name].generator(real, fake), fake)
    assert (gradient < 0).all()


def test_only_paired_games_read_the_real_logits():
    fake = torch.randn(5)
    for game in GAN_LOSSES.values():
        same = game.generator(torch.zeros(5), fake) == game.generator(torch.ones(5), fake)
        assert bool(same) is not game.paired


def test_a_sure_discriminator_leaves_the_generator_its_gradient():
    logit = torch.tensor([-10.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(adv.non_saturating_g(logit, logit), logit)
    assert float(gradient) == pytest.approx(-1, abs=1e-4)
    saturating = torch.log(1 - torch.sigmoid(logit)).mean()  # the negative control: the minimax form
    (gradient,) = torch.autograd.grad(saturating, logit)
    assert float(gradient) == pytest.approx(-4.54e-5, rel=1e-2)


def test_least_squares_optimum_is_one_half():
    grid = torch.linspace(-1, 2, 301, dtype=torch.float64)
    losses = torch.stack([adv.least_squares_d(d[None], d[None]) for d in grid])  # p = q: one score for both
    assert float(grid[losses.argmin()]) == pytest.approx(0.5)
    assert float(losses.min()) == pytest.approx(0.25)


def test_hinge_stops_at_the_margin():
    assert adv.hinge_d(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -9.0])) == 0


def test_relativistic_losses_see_differences_only():
    real, fake = torch.randn(2, 8, dtype=torch.float64)
    for loss in (adv.relativistic_d, adv.relativistic_g):
        torch.testing.assert_close(loss(real + 37, fake + 37), loss(real, fake))
    assert not torch.allclose(adv.non_saturating_d(real + 37, fake + 37), adv.non_saturating_d(real, fake))


# -- penalties -----------------------------------------------------------------------------------------------


def linear(a):
    return lambda x: x.flatten(1) @ a


@pytest.mark.parametrize(("norm", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_gradient_penalty_of_a_linear_critic(norm, penalty):
    a = torch.randn(12, dtype=torch.float64)
    a = a / a.norm() * norm
    real, fake = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64)
    assert float(gradient_penalty(linear(a), real, fake)) == pytest.approx(penalty, abs=1e-12)


def test_gradient_penalty_at_a_flat_critic_can_be_minimised():
    a = torch.zeros(4, requires_grad=True)
    gradient_penalty(linear(a), torch.randn(3, 4), torch.randn(3, 4)).backward()
    assert a.grad.isfinite().all()


def test_gradient_penalty_mixes_each_sample_by_its_own_weight():
    weights = interpolation_weights(torch.zeros(6, 3, 4, 5))
    assert weights.shape == (6, 1, 1, 1)
    assert weights.unique().numel() == 6
    assert interpolation_weights(torch.zeros(6, 2)).shape == (6, 1)


def test_gradient_penalty_looks_between_the_samples():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.sum(1)

    gradient_penalty(critic, torch.ones(500, 2), torch.zeros(500, 2))
    (x,) = seen
    assert torch.equal(x[:, 0], x[:, 1])  # one weight per sample, not per value
    assert 0 <= x.min() < 0.05
    assert 0.95 < x.max() <= 1


def test_zero_centred_penalty_of_a_linear_critic_is_its_squared_norm():
    a = torch.randn(12, dtype=torch.float64)
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(r1_penalty(linear(a), x), a.square().sum())


def test_zero_centred_penalty_of_a_quadratic_critic():
    a = torch.randn(4, 4, dtype=torch.float64)
    a = a + a.T
    x = torch.randn(9, 4, dtype=torch.float64)
    penalty = r1_penalty(lambda x: 0.5 * ((x @ a) * x).sum(1), x)
    torch.testing.assert_close(penalty, (x @ a).square().sum(1).mean())


@pytest.mark.parametrize("penalty", ["r1", "gp"])
def test_penalties_have_the_right_gradient(penalty, monkeypatch):
    """The second derivative by autograd equals finite differences of the penalty."""
    half = torch.full((3, 1), 0.5, dtype=torch.float64)
    monkeypatch.setattr(adv, "interpolation_weights", lambda x: half)
    real, fake = torch.randn(2, 3, 4, dtype=torch.float64)
    w1 = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    w2 = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def value(w1, w2):
        def critic(x):
            return torch.tanh(x @ w1) @ w2

        return r1_penalty(critic, real) if penalty == "r1" else gradient_penalty(critic, real, fake)

    assert torch.autograd.gradcheck(value, (w1, w2))


def test_penalties_stay_in_full_precision_under_autocast():
    net = nn.Linear(3, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 3)).dtype == torch.bfloat16
        assert input_gradient(lambda x: net(x).squeeze(1), torch.randn(2, 3)).dtype == torch.float32
    penalty = r1_penalty(lambda x: net(x).squeeze(1), torch.randn(2, 3))
    torch.testing.assert_close(penalty, net.weight.square().sum())


def test_penalties_work_where_gradients_are_switched_off():
    """Validation may ask for the loss inside `torch.no_grad()`."""
    with torch.no_grad():
        assert r1_penalty(linear(torch.ones(2)), torch.randn(3, 2)) == 2
