"""Every transform alone and in stacks: exact inverse, and the log-determinant of its Jacobian."""

import math

import pytest
import torch

from tests.nn.flows.transforms import (
    PARTS,
    SMALL,
    build,
    check_inverse,
    check_inverse_alone,
    check_log_det,
    inputs,
    randomised,
)
from zoo.core.errors import ZooError
from zoo.nn.flows.autoregressive import InverseAutoregressive, autoregressive
from zoo.nn.flows.base import ActNorm, Chain, Inverted, InvertibleLinear, Transform
from zoo.nn.flows.continuous import Continuous
from zoo.nn.flows.coupling import Squeeze, coupling
from zoo.nn.flows.tarflow import TarFlow


@pytest.mark.parametrize("name", PARTS)
def test_inverse(name):
    check_inverse(build(name), inputs(name))


@pytest.mark.parametrize("name", PARTS)
def test_log_det_is_that_of_autograds_jacobian(name):
    check_log_det(build(name), inputs(name, 2))


@pytest.mark.parametrize("name", PARTS)
def test_log_det_of_the_inverse_alone(name):
    check_inverse_alone(build(name), inputs(name, 2))


LOG_4 = math.log(4)


class Twice(Transform):
    """z = 2 x, with one error at a time."""

    def __init__(self, log_det=LOG_4, back=2.0):
        super().__init__()
        self.log_det, self.back = log_det, back

    def forward(self, x, y=None):
        return 2 * x, x.new_full((len(x),), self.log_det)

    def inverse(self, z, y=None):
        return z / self.back


def test_errors_are_found():
    x = torch.randn(2, 2, dtype=torch.float64)
    for check in (check_inverse, check_log_det, check_inverse_alone):
        check(Twice(), x)
    for check in (check_log_det, check_inverse_alone):
        with pytest.raises(AssertionError):
            check(Twice(log_det=0.0), x)
    for check in (check_inverse, check_inverse_alone):
        with pytest.raises(AssertionError):
            check(Twice(back=2.001), x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: coupling((4,), 3, n_couplings=2, **SMALL),
        lambda: coupling((1, 4, 4), 3, n_couplings=2, **SMALL),
        lambda: autoregressive((4,), 3, n_layers=2, **SMALL),
        lambda: autoregressive((4,), 3, n_layers=2, width=8, depth=0),
        lambda: InverseAutoregressive((4,), 3, n_layers=2, **SMALL),
        lambda: Continuous((4,), 3, steps=40, tolerance=1e-12, **SMALL),
        lambda: TarFlow((1, 4, 4), 3, n_blocks=2, n_layers=1, d_model=8),
    ],
)
def test_labels(make):
    transform, y = randomised(make()), torch.tensor([0, 2, 1])
    shape = (1, 4, 4) if isinstance(transform, TarFlow) or hasattr(transform, "levels") else (4,)
    x = torch.randn(1, *shape, dtype=torch.float64).expand(3, *shape)
    with torch.no_grad():
        z, log_det = transform(x, y)
        torch.testing.assert_close(transform.inverse(z, y), x, rtol=0, atol=1e-10)
        assert len({round(v, 6) for v in log_det.tolist()}) == 3
        assert not torch.allclose(transform.inverse(z, y.roll(1)), x)


def test_act_norm_normalises_its_first_batch_only():
    torch.manual_seed(0)
    norm, first, second = ActNorm(3).double(), torch.randn(64, 3, 2, 2).double() * 5 + 2, torch.randn(9, 3, 2, 2)
    assert torch.equal(norm(first)[0], first), "before fitting it is the identity"
    norm.fitting = True
    z = norm(first)[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.var(1, correction=0), torch.ones(3).double(), rtol=0, atol=1e-12)
    before = norm.shift.detach().clone()
    assert norm(second.double())[0].mean().abs() > 1e-3
    assert torch.equal(norm.shift, before)


def test_a_1x1_convolution_is_a_matrix_at_every_pixel():
    torch.manual_seed(0)
    transform = InvertibleLinear(4)
    lower, upper = transform.factors()
    weight = (lower @ upper)[transform.order]
    torch.testing.assert_close(weight @ weight.mT, torch.eye(4), rtol=0, atol=1e-5)  # a rotation at first
    assert not torch.allclose(weight, torch.eye(4), atol=0.1)
    x = torch.randn(2, 4, 3, 5)
    z, log_det = randomised(transform)(x.double())
    lower, upper = transform.factors()
    weight = (lower @ upper)[transform.order]
    torch.testing.assert_close(z, torch.einsum("ij,bjhw->bihw", weight, x.double()))
    torch.testing.assert_close(log_det, (15 * weight.det().abs().log()).expand(2))


def test_squeezing_puts_the_fields_of_a_chessboard_first():
    board = (torch.arange(4)[:, None] + torch.arange(6)) % 2
    z = Squeeze()(board.expand(1, 2, 4, 6).float())[0]
    assert z.shape == (1, 8, 2, 3)
    assert z[:, :4].eq(0).all()
    assert z[:, 4:].eq(1).all()


def test_half_of_the_values_are_finished_early():
    """At the first scale, a finished value depends on its neighbourhood only; the second scale sees the whole."""
    transform = coupling((1, 8, 8), 0, n_couplings=2, width=4, depth=0)
    assert transform.shapes == [(2, 4, 4), (8, 2, 2)]
    assert [len(level.parts) for level in transform.levels] == [4, 4]


def test_the_inverse_of_a_transform_is_one():
    transform = Inverted(Chain([build("linear"), build("maf")]))
    x = torch.randn(2, 5, dtype=torch.float64)
    check_inverse(transform, x)
    check_log_det(transform, x)
    assert torch.equal(transform.inverse(x), transform.transform(x)[0])


@pytest.mark.parametrize("shape", [(1,), (1, 3, 4)])
def test_data_without_two_halves_are_refused(shape):
    with pytest.raises(ZooError, match=r"have no two halves\. Choose model/transform=autoregressive"):
        coupling(shape, 0)
