"""Points in the plane: samples follow their density."""

import math

import pytest
import torch
from sklearn.datasets import make_moons

from zoo.core import registry
from zoo.data.vector import toy2d

NAMES = ["grid25", "ring8", "rings", "moons", "checkerboard"]
MODES = {"grid25": 25, "ring8": 8, "rings": 4, "moons": 2, "checkerboard": 8}


@pytest.fixture(scope="module")
def sets():
    modules = {name: registry.build("data", name) for name in NAMES}
    for module in modules.values():
        module.setup()
    return modules


@pytest.mark.parametrize("name", NAMES)
def test_spec_and_splits(sets, name):
    data = sets[name]
    assert (data.spec.x.registered_name, data.spec.shape) == ("vector", (2,))
    assert (data.spec.n_classes, data.spec.name) == (MODES[name], name)
    assert [len(s[0]) for s in (data.train, data.val, data.test)] == [50_000, 10_000, 10_000]
    for x, y in (data.train, data.val, data.test):
        assert x.dtype == torch.float32
        assert y.bincount(minlength=MODES[name]).min() > 0.9 * len(y) / MODES[name]
    assert not set(map(tuple, data.train[0].tolist())) & set(map(tuple, data.test[0].tolist()))


@pytest.mark.parametrize("name", NAMES)
def test_the_points_never_change(sets, name):
    again = registry.build("data", {"name": name, "seed": 9, "batch_size": 3})
    torch.manual_seed(4)
    again.setup()
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(again, split)[0], getattr(sets[name], split)[0])


@pytest.mark.parametrize("name", NAMES)
def test_roughly_unit_scale(sets, name):
    x = sets[name].train[0]
    assert x.mean(0).abs().max() < 0.02
    assert (x.std(0) - 1).abs().max() < (0.16 if name == "checkerboard" else 0.01)
    assert x.abs().max() < 2.5, "so that one extent shows every set"


@pytest.mark.parametrize("name", ["grid25", "ring8"])
def test_gaussians_have_their_centers_and_sigma(sets, name):
    data = sets[name]
    x, y = data.train
    assert data.centers.shape == (MODES[name], 2)
    for mode in range(MODES[name]):
        part = x[y == mode]
        assert (part.mean(0) - data.centers[mode]).abs().max() < 5 * data.sigma / math.sqrt(len(part))
        assert part.std(0) == pytest.approx([data.sigma] * 2, rel=0.1)
    assert torch.equal(torch.cdist(x, data.centers).argmin(1), y), "the modes do not touch"
    gap = torch.pdist(data.centers).min()
    assert gap > 20 * data.sigma


def test_the_constants_of_the_papers():
    assert torch.allclose(
        toy2d.Grid25.centers * math.sqrt(8),
        torch.tensor([(a, b) for a in (-4.0, -2, 0, 2, 4) for b in (-4.0, -2, 0, 2, 4)]),
    )
    assert toy2d.Grid25.sigma * math.sqrt(8) == pytest.approx(0.05)
    assert torch.allclose((toy2d.Ring8.centers * math.sqrt(2)).norm(dim=1), torch.tensor(2.0))
    assert toy2d.Ring8.sigma * math.sqrt(2) == pytest.approx(0.02)


def mixture(data):
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    centers = data.centers.double()
    normal = Normal(centers, torch.full_like(centers, data.sigma))
    return MixtureSameFamily(Categorical(torch.ones(len(data.centers)).double()), Independent(normal, 1))


@pytest.mark.parametrize("name", ["grid25", "ring8"])
def test_log_prob_of_mixtures_is_that_of_torch(sets, name):
    data = sets[name]
    x = torch.cat([data.val[0][:500], torch.randn(100, 2)]).double()
    torch.testing.assert_close(data.log_prob(x), mixture(data).log_prob(x))


def test_log_prob_of_rings_is_the_average_of_gaussians_around_the_circles(sets):
    data = sets["rings"]
    angle = torch.arange(4000, dtype=torch.double) * (2 * math.pi / 4000)
    circles = data.radii.double()[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1)
    x = torch.cat([data.val[0][:100], torch.randn(20, 2), torch.zeros(1, 2)]).double()
    squares = (x[:, None] - circles.reshape(1, -1, 2)).square().sum(-1)
    average = torch.logsumexp(-squares / (2 * data.sigma**2), 1) - math.log(16_000 * 2 * math.pi * data.sigma**2)
    torch.testing.assert_close(data.log_prob(x), average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_densities_integrate_to_one(sets, name):
    step, extent = 0.006, 1.8 if name in ("grid25", "ring8") else 3.0
    if name == "moons":
        step = 0.03  # its noise is 0.057, and each value is an average over 2,000 points
    middles = torch.arange(-extent + step / 2, extent, step, dtype=torch.double)
    mesh = torch.cartesian_prod(middles, middles)
    total = sum(sets[name].log_prob(part).exp().sum() for part in mesh.split(20_000))
    assert total * step**2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_points_are_drawn_from_the_density(sets, name):
    """Compare counts in cells with the integral of the density: chi squared per cell is about 1."""
    data, fine = sets[name], 2 if name == "moons" else 8
    x = torch.cat([data.train[0], data.val[0], data.test[0]])
    cells, extent = 60, 2.5
    side = (torch.arange(cells * fine, dtype=torch.double) + 0.5) * (2 * extent / (cells * fine)) - extent
    mesh = torch.cartesian_prod(side, side)
    density = torch.cat([data.log_prob(part).exp() for part in mesh.split(50_000)])
    mass = density.view(cells, fine, cells, fine).sum((1, 3)) * (2 * extent / (cells * fine)) ** 2
    place = ((x + extent) / (2 * extent / cells)).floor().long()
    counts = torch.bincount(place[:, 0] * cells + place[:, 1], minlength=cells**2).view(cells, cells)
    expected = mass * len(x)
    if name in ("rings", "moons", "checkerboard"):
        big = expected > 20
        chi = ((counts - expected).square() / expected)[big].mean()
        tolerance = 0.6 if name == "checkerboard" else 0.25  # edges of squares cut cells
        assert chi == pytest.approx(1, abs=tolerance)
        assert counts[expected < 1e-3].sum() <= 2
    else:  # modes are narrower than cells: mean log density against the entropy of separate Gaussians
        entropy = math.log(data.n_modes * 2 * math.pi * math.e * data.sigma**2)
        assert -data.log_prob(x).mean() == pytest.approx(entropy, abs=4 / math.sqrt(len(x)))


def test_the_checkerboard_is_dark_where_it_should_be(sets):
    data = sets["checkerboard"]
    middle = torch.tensor([(i - 1.5, j - 1.5) for j in range(4) for i in range(4)])
    dark = data.log_prob(middle).isfinite().tolist()
    assert dark == [(i + j) % 2 == 0 for j in range(4) for i in range(4)]
    assert data.log_prob(torch.tensor([[2.5, 0.5], [-1.5, -2.5], [9.0, 9.0]])).tolist() == [-math.inf] * 3
    for split in (data.train, data.val, data.test):
        assert (data.log_prob(split[0]) == -torch.tensor(8.0).log()).all()
    x, y = data.train
    assert torch.equal((x + 2).floor()[:, 1] * 2 + ((x + 2).floor()[:, 0] / 2).floor(), y.float())


def test_moons_are_those_of_scikit_learn(sets):
    data = sets["moons"]
    theirs, label = make_moons(60_000, noise=0.05, random_state=0)
    theirs = (torch.as_tensor(theirs).float() - data.middle) / data.scale
    x, y = data.train
    for mode in (0, 1):
        ours, other = x[y == mode], theirs[torch.as_tensor(label) == mode]
        assert (ours.mean(0) - other.mean(0)).abs().max() < 0.02
        assert (torch.cov(ours.T) - torch.cov(other.T)).abs().max() < 0.02
