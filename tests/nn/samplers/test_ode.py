"""The solver against closed forms, and divergences against the trace of a Jacobian."""

import itertools
import math

import pytest
import torch

from zoo.core.errors import ZooError
from zoo.nn.samplers.ode import divergence, solve_ode


def test_adaptive_steps_meet_the_tolerance() -> None:
    """dz/dt = -z + t has a closed form; a smaller tolerance takes more steps and has a smaller error."""
    exact = lambda t: 2 * math.exp(-t) + t - 1  # noqa: E731
    errors, lengths = [], []
    for tolerance in (1e-3, 1e-8):
        path = list(solve_ode(lambda z, t: -z + t, torch.ones(1, 1, dtype=torch.float64), 0.0, 3.0, tolerance))
        errors.append(abs(path[-1][1].item() - exact(3.0)))
        lengths.append(len(path))
        assert path[-1][0] == pytest.approx(3.0)
    assert errors[0] < 1e-2
    assert errors[1] < 1e-7
    assert lengths[0] < lengths[1]


def error(steps, rounded=False):
    """Error of z(4), where dz/dt = -z cos t and z(0) = 1; as a negative control, with derivatives at wrong times."""
    field = lambda z, t: -z * math.cos(round(t, 1) if rounded else t)  # noqa: E731
    *_, (t, z) = solve_ode(field, torch.ones(1, 1, dtype=torch.float64), 0.0, 4.0, steps=steps)
    assert t == pytest.approx(4)
    return abs(z.item() - math.exp(-math.sin(4.0)))


def test_equal_steps_have_order_five():
    errors = [error(steps) for steps in (16, 32, 64)]
    orders = [math.log2(one / two) for one, two in itertools.pairwise(errors)]
    assert all(4.6 < order < 5.4 for order in orders), orders
    assert errors[-1] < 1e-8
    assert error(64, rounded=True) > 1e-4


def test_equal_steps_go_back():
    field = lambda z, t: torch.sin(z) + t  # noqa: E731
    z = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)
    *_, (_, end) = solve_ode(field, z, 0.0, 1.0, steps=64)
    *_, (_, back) = solve_ode(field, end, 1.0, 0.0, steps=64)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    assert not torch.allclose(end, z, atol=0.1)


@pytest.mark.parametrize("field", [lambda z, t: z * math.nan, lambda z, t: z / (0.5 - t) ** 2])
def test_a_field_that_cannot_be_solved_is_an_error_and_not_an_endless_loop(field):
    with pytest.raises(ZooError, match=r"cannot be solved at t=.*smaller model\.optimizer\.lr"):
        list(solve_ode(field, torch.ones(2, 2), 0.0, 1.0))


def test_divergence_and_hutchinsons_estimate() -> None:
    """tanh(A z) has a known divergence; Rademacher probes are unbiased, with less variance than normal ones."""
    a = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    field = lambda z: torch.tanh(z @ a.T)  # noqa: E731
    true = ((1 - field(z) ** 2) * a.diagonal()).sum(1)
    torch.testing.assert_close(divergence(field, z, None)[1], true)
    generator = torch.Generator().manual_seed(2)
    signs = torch.randint(0, 2, (4000, 3, 8), generator=generator).double() * 2 - 1
    normal = torch.randn(4000, 3, 8, dtype=torch.float64, generator=generator)
    estimates, noisier = (torch.stack([divergence(field, z, p)[1] for p in probes]) for probes in (signs, normal))
    torch.testing.assert_close(estimates.mean(0), true, rtol=0, atol=0.3)
    assert (estimates.std(0) < noisier.std(0)).all()


def test_the_divergence_has_gradients():
    """Of sum(w z^2) they are 2 z with respect to w, and 2 w with respect to z: exact, and by an estimate."""
    w = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    z = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64).expand(4, 3)
    for probe in (None, signs):  # the Jacobian is diagonal, so that signs are exact
        value, div = divergence(lambda z: w * z**2, z, probe, differentiable=True)
        torch.testing.assert_close(div, (2 * w * z).sum(1))
        found = torch.autograd.grad(div.sum(), (w, z), retain_graph=True)
        torch.testing.assert_close(found[0], 2 * z.sum(0))
        torch.testing.assert_close(found[1], (2 * w).expand(4, 3))
        assert torch.autograd.grad(value.sum(), w)[0].abs().min() > 0
        assert not divergence(lambda z: w * z**2, z, probe)[1].requires_grad
