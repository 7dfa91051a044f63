"""A continuous flow against closed forms: linear fields, and densities that integrate to one."""

import math

import pytest
import torch
from torch import nn

from tests.nn.flows.transforms import inputs, randomised
from zoo.nn.flows.continuous import Continuous


class Linear(nn.Module):
    """dz/dt = A z + t b, whose solution is a matrix exponential."""

    def __init__(self, dim, scale=0.5):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(scale * torch.randn(dim, dim, generator=generator).double())
        self.shift = nn.Parameter(torch.randn(dim, generator=generator).double())

    def forward(self, z, t, y):
        return z @ self.matrix.mT + t * self.shift

    def exact(self, x):
        """z(1): the exponential of the field on (z, t, 1), whose last two rows count the time."""
        dim = len(self.shift)
        whole = torch.zeros(dim + 2, dim + 2).double()
        whole[:dim, :dim], whole[:dim, dim], whole[dim, dim + 1] = self.matrix, self.shift, 1.0
        power = torch.linalg.matrix_exp(whole)
        return x @ power[:dim, :dim].mT + power[:dim, dim + 1]


def linear(dim, steps=20, scale=0.5):
    transform = Continuous((dim,), 0, steps=steps, tolerance=1e-9).double()
    transform.field = Linear(dim, scale)
    return transform


@pytest.mark.parametrize("trained", [True, False])
def test_a_linear_field_is_a_matrix_exponential(trained):
    transform = linear(3).train(trained)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z, log_det = transform(x)
    field = transform.field
    torch.testing.assert_close(z, field.exact(x), rtol=0, atol=1e-7)
    torch.testing.assert_close(log_det, field.matrix.trace().expand(4), rtol=0, atol=1e-7)
    wrong = torch.linalg.slogdet(torch.eye(3) + field.matrix).logabsdet.item()  # one step of Euler
    assert abs(log_det[0].item() - wrong) > 0.05
    for which in (0, 1):  # the gradients of the trace and of the solution
        found = torch.autograd.grad((log_det.sum(), z.sum())[which], field.matrix, retain_graph=True)[0]
        want = torch.autograd.grad((4 * field.matrix.trace(), field.exact(x).sum())[which], field.matrix)[0]
        torch.testing.assert_close(found, want, rtol=0, atol=1e-6)
    torch.testing.assert_close(transform.inverse(z), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(transform.latents(x), z, rtol=0, atol=1e-6)


def test_many_dimensions_have_an_unbiased_estimate_with_one_probe_for_the_whole_solution():
    """Signs have the variance 2 |A|^2 off the diagonal of the symmetric part, as if A had been probed once."""
    transform, n = linear(20, steps=4, scale=0.1).eval(), 4000
    assert not transform.exact
    matrix = transform.field.matrix.detach()
    torch.manual_seed(0)
    with torch.no_grad():
        log_det = transform(torch.randn(n, 20, dtype=torch.float64))[1]
    symmetric = (matrix + matrix.mT) / 2
    variance = 2 * (symmetric.square().sum() - symmetric.diag().square().sum())
    assert abs(log_det.mean() - matrix.trace()) < 4 * math.sqrt(variance / n)
    assert log_det.var().item() == pytest.approx(variance.item(), rel=0.15)
    assert abs(log_det.mean() - matrix.sum()) > 10 * math.sqrt(variance / n), "not the sum of all entries"


def test_the_density_integrates_to_one_only_with_the_divergence():
    torch.manual_seed(0)
    transform = randomised(Continuous((2,), 0, width=8, depth=1, tolerance=1e-5), 0.3)
    side = torch.linspace(-12, 12, 121, dtype=torch.float64)
    with torch.no_grad():
        z, log_det = transform(torch.cartesian_prod(side, side))
        base = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    assert (base + log_det).exp().sum().item() * 0.04 == pytest.approx(1, abs=1e-3)
    assert abs(base.exp().sum().item() * 0.04 - 1) > 0.05


def test_more_steps_in_training_give_the_likelihood_of_the_evaluation():
    """The solver of the training is an approximation; evaluation meets its tolerance."""
    torch.manual_seed(0)
    transform = randomised(Continuous((3,), 0, width=8, depth=1, tolerance=1e-9), 0.4)
    x = inputs("continuous")
    with torch.no_grad():
        want, errors = transform.eval()(x)[1], []
        for transform.steps in (1, 2, 8):
            errors.append((transform.train()(x)[1] - want).abs().max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 1e-4


def test_an_untrained_image_flow_is_the_identity_and_is_read_in_inference_mode():
    transform = Continuous((1, 4, 4), 3, width=8, depth=1)
    x, y = torch.rand(2, 1, 4, 4), torch.tensor([0, 2])
    with torch.inference_mode():
        z, log_det = transform(x + 0, y + 0)
    assert torch.equal(z, x)
    assert log_det.abs().max() == 0
    z, log_det = transform(x, y)
    (log_det.sum() + z.sum()).backward()
    assert all(p.grad is not None for p in transform.parameters())
