"""Learned noise between levels: its density, and the bound on a mass that is known."""

import math

import pytest
import torch

import zoo
from tests.nn.flows.transforms import jacobian, randomised
from zoo.core.errors import ConfigError
from zoo.core.spaces import Image, Vector
from zoo.data.batch import Batch
from zoo.nn.flows.dequantization import VariationalDequantizer

SHAPES = [(2, 1, 1), (1, 2, 2), (1, 1, 2), (3, 2, 4)]  # halves of channels, of squares, and none
SMALL = {"n_couplings": 2, "width": 8, "depth": 1}


def dequantizer(shape, scale=0.2):
    torch.manual_seed(0)
    return randomised(VariationalDequantizer(shape, **SMALL), scale)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_density_of_the_noise_is_that_of_a_change_of_variables(shape):
    model = dequantizer(shape, 0.05 if shape[0] == 3 else 0.2)
    generator = torch.Generator().manual_seed(1)
    e, x = (torch.randn(3, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        u, log_q = model.from_noise(e, x)
    assert ((u > 0) & (u < 1)).all()
    normal = -0.5 * e.square().flatten(1).sum(1) - 0.5 * e[0].numel() * math.log(2 * math.pi)
    for row in range(3):
        log_det = torch.linalg.slogdet(jacobian(lambda v, row=row: model.from_noise(v, x[row][None])[0], e[row]))[1]
        assert log_q[row].item() == pytest.approx((normal[row] - log_det).item(), abs=1e-9)
        assert abs(log_det) > 0.1
    assert not torch.equal(u, model.from_noise(e, x + 0.5)[0]), "the noise depends on the image"


def test_the_noise_is_uniform_at_first():
    model = VariationalDequantizer((1, 4, 4))
    torch.manual_seed(0)
    u, log_q = model(torch.rand(500, 1, 4, 4))
    assert log_q.abs().max() < 1e-6
    u = u.flatten().sort().values
    distance = (u - (torch.arange(len(u)) + 0.5) / len(u)).abs().max().item()
    assert distance < 1.63 / math.sqrt(len(u)), "Kolmogorov-Smirnov, one percent"
    assert u[0] >= 0 > u[-1] - 1


def known(dequantization):
    """A flow of two channels with three levels, in which all densities depend on both values; and the nine images."""
    torch.manual_seed(0)
    spec = zoo.DataSpec(Image(2, 1, 1, levels=3))
    model = zoo.create_model("maf", data=spec, transform={"width": 8, "depth": 1}, dequantization=dequantization)
    with torch.no_grad():
        for p in model.transform.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 2).view(9, 2, 1, 1)
    return model, x


def densities(model, x):
    """Log-densities of images (9, 2, 1, 1) at every noise on a grid, (9, 1600)."""
    noise = torch.cartesian_prod(*[(torch.arange(40) + 0.5) / 40] * 2).double().view(-1, 2, 1, 1)
    return torch.stack([model.log_density(model.prepare(one, noise), None) for one in x])


def test_the_mean_of_the_weights_is_the_probability_whatever_the_noise():
    """E_q p(x + u) / q(u | x) = P(x): the integral of the density over a square. Without q it is another number."""
    model, x = known({"name": "variational", **SMALL})
    model = model.double().eval()
    with torch.no_grad():
        exact = densities(model, x.double()).exp().mean(1)
        for p in model.dequantize.parameters():
            p.add_(0.2 * torch.randn_like(p))
        n, wide = 4000, x.double().repeat_interleave(4000, 0)
        u, log_q = model.dequantize(wide)
        log_p = model.log_density(model.prepare(wide, u), None)
        weights = (log_p - log_q).exp().view(9, n)
        unweighted = log_p.exp().view(9, n).mean(1)
    error = weights.std(1) / math.sqrt(n)
    assert ((weights.mean(1) - exact).abs() < 4 * error + 1e-4).all()
    assert ((unweighted - exact).abs() > 4 * error + 1e-4).any()


def test_after_training_the_bound_is_tighter_than_with_uniform_noise_and_still_a_bound():
    model, x = known({"name": "variational", **SMALL})
    model.transform.requires_grad_(False)
    batch, parameters = x.repeat(20, 1, 1, 1), list(model.dequantize.parameters())
    optimizer = torch.optim.Adam(parameters, 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(Batch(batch, None))["loss"].backward()
        assert all(p.grad is not None for p in parameters)
        optimizer.step()
    with torch.no_grad():
        wide = x.repeat_interleave(4000, 0)
        learned = model.bound(wide).view(9, -1)
        model.double()
        grid = densities(model, x.double())
        exact, uniform = grid.exp().mean(1).log(), grid.mean(1)
    gap, error = (exact - learned.mean(1)).mean(), learned.std(1).mean() / math.sqrt(9 * 4000)
    assert gap > -4 * error
    assert gap < 0.5 * (exact - uniform).mean() - 4 * error, (gap, exact - uniform)


def test_vectors_have_no_levels():
    with pytest.raises(ConfigError, match=r"model\.dequantization=.*has no levels"):
        zoo.create_model("maf", data=zoo.DataSpec(Vector(3)), dequantization="variational")
