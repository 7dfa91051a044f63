"""Splines: monotone, continuously differentiable, invertible, the identity outside, and equal to zuko's."""

import math

import pytest
import torch
import zuko

from zoo.nn.flows.univariate import Affine, RationalQuadratic, spline, spline_inverse

BINS, BOUND = 6, 2.5
FUNCTION = RationalQuadratic(BINS, BOUND)


def random_params(n=20):
    return 2 * torch.randn(n, FUNCTION.n_params, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_zeros_give_the_identity():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    for function in (FUNCTION, Affine()):
        z, log_slope = function.forward(x, torch.zeros(101, function.n_params, dtype=torch.float64))
        torch.testing.assert_close(z, x, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)


def test_knots_are_met():
    x, y, slopes = FUNCTION.knots(random_params())
    assert (x.diff() > 0).all()
    assert (y.diff() > 0).all()
    for knots in (x, y):
        assert torch.equal(knots[:, 0], torch.full((20,), -BOUND).double())
        assert torch.equal(knots[:, -1], torch.full((20,), BOUND).double())
    inner = slice(1, BINS)
    wide = [knots[:, None].expand(20, BINS - 1, -1) for knots in (x, y, slopes)]
    z, log_slope = spline(x[:, inner], *wide)
    torch.testing.assert_close(z, y[:, inner])
    torch.testing.assert_close(log_slope.exp(), slopes[:, inner])


def test_monotone_and_continuously_differentiable():
    """The derivative is autograd's, positive, and equal on both sides of each knot and of the bound."""
    params = random_params()
    knots = FUNCTION.knots(params)[0]  # (20, K + 1)
    wide = params[:, None].expand(-1, BINS + 1, -1)
    for side in (-1e-11, 1e-11):
        z, log_slope = FUNCTION.forward(knots + side, wide)
        torch.testing.assert_close(z, FUNCTION.knots(params)[1], rtol=0, atol=1e-6)
        torch.testing.assert_close(log_slope.exp(), FUNCTION.knots(params)[2], rtol=1e-4, atol=1e-5)
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64).expand(20, -1).clone().requires_grad_()
    z, log_slope = FUNCTION.forward(x, params[:, None].expand(-1, 1001, -1))
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(log_slope.exp(), slope)
    assert (slope > 0).all()
    assert (z.diff() > 0).all()


def test_the_identity_outside():
    x = torch.tensor([-1e6, -7.0, -BOUND, BOUND, 3.0, 1e6], dtype=torch.float64)
    params = random_params(6)
    z, log_slope = FUNCTION.forward(x, params)
    assert torch.equal(z, x)
    assert not log_slope.any()
    assert torch.equal(FUNCTION.inverse(x, params), x)


def test_inverse_of_steep_and_flat_splines():
    """By the root that does not cancel: exact where bins differ by a factor of 10^4, also in float32."""
    params, x = 5 * random_params(400), torch.linspace(-3, 3, 400, dtype=torch.float64)
    z, _ = FUNCTION.forward(x, params)
    torch.testing.assert_close(FUNCTION.inverse(z, params), x, rtol=0, atol=1e-8)
    again, _ = FUNCTION.forward(FUNCTION.inverse(x.float(), params.float()), params.float())
    torch.testing.assert_close(again, x.float(), rtol=0, atol=1e-3)  # eps x bound x a slope of 1,000
    assert FUNCTION.inverse(z, params.roll(1, 0)).sub(x).abs().max() > 0.1


def test_equal_to_zuko():
    theirs = zuko.transforms.MonotonicRQSTransform(*random_params().split([BINS, BINS, BINS - 1], 1), bound=BOUND)
    knots = theirs.horizontal, theirs.vertical, theirs.derivatives
    x = 2 * torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z, log_slope = spline(x, *knots)
    want, want_slope = theirs.call_and_ladj(x)
    torch.testing.assert_close(z, want)
    torch.testing.assert_close(log_slope, want_slope)
    torch.testing.assert_close(spline_inverse(want, *knots), x)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(spline(x, knots[0], knots[1], knots[2] * 1.01)[1], want_slope)


def test_affine_scales_are_bounded():
    params = torch.tensor([[0.0, 1e6], [0.0, -1e6], [1.0, 0.1]], dtype=torch.float64)
    z, log_slope = Affine().forward(torch.ones(3, dtype=torch.float64), params)
    want = torch.tensor([3.0, -3.0, 3 * math.tanh(0.1 / 3)], dtype=torch.float64)
    torch.testing.assert_close(log_slope, want)
    torch.testing.assert_close(z, want.exp() * (1 - params[:, 0]))
