"""Flows as models: the bound on the probability of levels, densities in data units, noise and samples."""

import itertools
import math

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import examples, make
from zoo.core.spaces import Image, Label, Vector
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.abilities import SupportsLogProb
from zoo.models.ability import supports
from zoo.nn.flows.base import ActNorm

PAIR = zoo.DataSpec(Image(1, 1, 2, levels=3))  # nine images
NOISE = (torch.arange(40) + 0.5) / 40  # of the midpoint rule


def flow(spec, recipe="maf", scale=0.2, **given):
    torch.manual_seed(0)
    model = make(recipe, spec, **given)
    with torch.no_grad():
        for p in model.transform.parameters():
            p.add_(scale * torch.randn_like(p))
    return model.double().eval()


def images():
    """All images of PAIR, (9, 1, 1, 2)."""
    return torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=2)), dtype=torch.float64).view(9, 1, 1, 2)


def densities(model, x, y=None):
    """Log-densities of images at every noise on a grid, (B, 1600)."""
    noise = torch.cartesian_prod(NOISE, NOISE).double()
    each = [model.log_density(model.prepare(one, noise.view(-1, 1, 1, 2)), y) for one in x]
    return torch.stack(each)


def test_the_bound_is_the_mean_over_the_noise_and_below_the_probability():
    model, x = flow(PAIR), images()
    with torch.no_grad():
        grid = densities(model, x)
        exact, mean = grid.exp().mean(1).log(), grid.mean(1)
        torch.manual_seed(0)
        draws = torch.stack([model.bound(x) for _ in range(4000)])
        error = draws.std(0) / math.sqrt(4000)
        assert ((draws.mean(0) - mean).abs() < 4 * error + 1e-3).all()
        assert (mean < exact).all()
        assert (mean < exact - 0.01).any(), "the bound is not tight"
        tight = model.bound(x, k=4000)
        relative = grid.exp().std(1) / grid.exp().mean(1) / math.sqrt(4000)
        assert ((tight - exact).abs() < 4 * relative + 1e-3).all()


def test_the_probabilities_of_all_levels_and_of_the_rest_of_the_plane_sum_to_one():
    """The density in units of a level integrates to one; the images are the squares [0, 3)^2."""
    model = flow(PAIR)
    side = (torch.arange(-400, 430) + 0.5) / 10
    points = torch.cartesian_prod(side, side).double()  # in levels, about 9 deviations to each side
    with torch.no_grad():
        x = model.standardize(points.view(-1, 1, 1, 2) / 3)
        p = model.log_density(x, None).exp() / 100
        inside = ((points > 0) & (points < 3)).all(1)
        assert p.sum().item() == pytest.approx(1, abs=1e-3)
        assert p[inside].sum().item() == pytest.approx(densities(model, images()).exp().mean(1).sum().item(), abs=2e-3)
        assert p[inside].sum() < 0.9, "before training, noise outside of the levels has its share"
        model.levels = 4  # the negative control: wrong units
        assert model.log_density(x, None).exp().sum().item() / 100 == pytest.approx(9 / 16, abs=1e-3)


def test_a_density_is_in_units_of_the_data():
    """Also where data are standardised: it integrates to one, and moves with the data."""
    spec = zoo.DataSpec(Vector(2))
    model, x = flow(spec, "nsf"), torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        before = model.log_prob(x)
        model.standardize.location.copy_(torch.tensor([5.0, -2.0]))
        model.standardize.scale.copy_(torch.tensor([3.0, 0.5]))
        moved = model.standardize.inverse(x)
        torch.testing.assert_close(model.log_prob(moved), before - math.log(1.5))
        (one,) = model.likelihoods(moved)
    assert (one.kind, one.exact, one.name) == ("continuous", True, "nll")
    torch.testing.assert_close(one.value, before - math.log(1.5))


def test_images_have_a_bound_and_no_density():
    model = flow("image", "realnvp")
    x, _ = examples(model.spec, 4)
    assert not supports(model, SupportsLogProb)
    names = []
    with torch.no_grad():
        for k in (1, 3):
            (one,) = model.likelihoods(x.double(), k=k)
            names.append(one.name)
            assert (one.kind, one.exact) == ("discrete", False)
    assert names == ["nelbo", "nll_iw"]
    terms = model.loss(Batch(x.double(), None))
    assert terms["bits_per_dim"].item() == pytest.approx(terms["loss"].item() / (64 * math.log(2)))


@pytest.mark.parametrize("recipe", ["realnvp", "glow", "nsf", "maf", "tarflow"])
def test_noise_gives_back_the_image(recipe):
    model = flow("image", recipe, 0.05)
    x = examples(model.spec, 4).x.double()
    z = model.encode(x)
    torch.testing.assert_close(model.decode(z), x)
    with torch.no_grad():
        middle = model.standardize.inverse(model.transform.inverse(z.view(x.shape))) * 17
    torch.testing.assert_close(middle - 0.5, 16 * x)
    assert (model.decode(z + 1) * 16 % 1 == 0).all(), "samples are on the levels"


def test_samples_have_the_density():
    """Half of the samples are in the half plane that has half of the probability, and so on for four quarters."""
    model = flow(zoo.DataSpec(Vector(2)), "nsf").float()
    side = (torch.arange(800) + 0.5) / 50 - 8
    points = torch.cartesian_prod(side, side)
    n = 20_000
    with torch.no_grad():
        p = model.log_prob(points).exp() / 2500
        drawn = model.sample(n, seed=0)
    for sign in itertools.product([-1, 1], repeat=2):
        signs = torch.tensor(sign)
        want = p[(points * signs > 0).all(1)].sum().item()
        found = (drawn * signs > 0).all(1).float().mean().item()
        assert abs(found - want) < 4 * math.sqrt(want * (1 - want) / n) + 1e-3
        assert abs((drawn * 0.7 + 0.4 > 0).float().mean().item() - (drawn > 0).float().mean().item()) > 0.05


def test_labels_condition_density_and_samples():
    spec = zoo.DataSpec(Vector(2), Label(3))
    model = flow(spec, "nsf", conditional=True)
    x, y = torch.randn(1, 2, dtype=torch.float64).expand(3, 2), torch.arange(3)
    with torch.no_grad():
        assert len({round(v, 6) for v in model.log_prob(x, y).tolist()}) == 3
        z = model.encode(x, y)
        torch.testing.assert_close(model.decode(z, y), x)
        model.float()
        drawn = model.sample(3, condition=y, generator=make_generator(0))
        other = model.sample(3, condition=y.roll(1), generator=make_generator(0))
    assert not torch.allclose(drawn, other)
    with pytest.raises(zoo.ZooError, match="y=None: the model is conditional"):
        model.log_prob(x.float())


class Wide(zoo.DataModule):
    """Vectors with other means and deviations than standard ones, though near enough not to be standardised."""

    spec = zoo.DataSpec(Vector(3))

    def load(self):
        x = 2 * torch.randn(64, 3, generator=make_generator(0)) + torch.tensor([1.0, 0.0, -2.0])
        self.train = self.val = self.test = x, torch.zeros(64, dtype=torch.long)


def test_training_begins_with_normalised_activations():
    """Glow's data-dependent initialisation, once: a trained model keeps its weights when it is trained again."""
    model, data = make("glow", zoo.DataSpec(Vector(3))), Wide(16, 0)
    options = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    seen = {}

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            with torch.no_grad():
                first = next(m for m in pl_module.transform.modules() if isinstance(m, ActNorm))
                seen["z"] = first(data.train[0])[0]
                seen["shift"] = first.shift.clone()

    L.Trainer(max_steps=3, callbacks=[Look()], **options).fit(model, datamodule=data)
    torch.testing.assert_close(seen["z"].mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen["z"].var(0, correction=0), torch.ones(3), rtol=0, atol=1e-5)
    norms = [m for m in model.transform.modules() if isinstance(m, ActNorm)]
    assert all(norm.initialized and not norm.fitting for norm in norms)
    trained = norms[0].shift.detach().clone()
    L.Trainer(max_steps=3, callbacks=[Look()], **options).fit(model, datamodule=data)
    assert torch.equal(seen["shift"], trained)
