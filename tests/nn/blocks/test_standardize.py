"""Standardisation of vectors: forward, inverse, densities, training and old checkpoints."""

import pytest
import torch
from torch import distributions as D

import zoo
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.models.variational.vae import VAE
from zoo.nn.blocks.standardize import Standardize

SPEC = DataSpec(Vector(3))


def test_far_vectors_become_standard_and_come_back():
    x = torch.randn(5000, 3) * torch.tensor([100.0, 0.01, 1.0]) + torch.tensor([1000.0, 0.0, -5.0])
    standardize = Standardize(SPEC)
    standardize.fit(x)
    z = standardize(x)
    assert torch.allclose(z.mean(0), torch.zeros(3), atol=1e-3)
    assert torch.allclose(z.std(0), torch.ones(3), atol=1e-2)
    assert torch.allclose(standardize.inverse(z), x, rtol=1e-4, atol=1e-4)


def test_log_abs_det_completes_a_density():
    x = 1000 + 100 * torch.randn(2000, 3)
    standardize = Standardize(SPEC)
    standardize.fit(x)
    normal = D.Normal(standardize.location, standardize.scale).log_prob(x).sum(1)
    assert torch.allclose(D.Normal(0, 1).log_prob(standardize(x)).sum(1) + standardize.log_abs_det, normal, atol=1e-3)


@pytest.mark.parametrize("x", [torch.randn(500, 3), 2.5 * torch.randn(500, 3) + 1])
def test_near_vectors_stay_unchanged(x):
    standardize = Standardize(SPEC)
    standardize.fit(x)
    assert torch.equal(standardize(x), x)


def test_constant_columns_and_images():
    standardize = Standardize(SPEC)
    standardize.fit(torch.cat([1000 * torch.randn(50, 2), torch.full((50, 1), 7.0)], 1))
    assert standardize.scale[2] == 1
    assert torch.isfinite(standardize(torch.randn(2, 3))).all()
    image = torch.rand(2, 1, 4, 4)
    assert torch.equal(Standardize(DataSpec(Image(1, 4, 4)))(image), image)


def test_the_bound_of_shifted_and_scaled_vectors_differs_by_the_jacobian():
    torch.manual_seed(0)
    model = VAE(SPEC, latent_dim=2).eval()
    x = torch.randn(64, 3)
    torch.manual_seed(1)
    plain = model.iw_bound(x)
    model.standardize.location.fill_(1000.0)
    model.standardize.scale.fill_(100.0)
    torch.manual_seed(1)
    moved = model.iw_bound(1000 + 100 * x)
    assert torch.allclose(moved, plain - 3 * torch.tensor(100.0).log(), atol=1e-2)


@pytest.mark.parametrize("name", ["vae", "gan", "ae"])
def test_training_fits_it_and_samples_are_in_units_of_the_data(name, tmp_path):
    x = 1000 + 100 * torch.randn(400, 3)
    model = zoo.fit(name, x, max_steps=4, progress=False, folder=tmp_path / "run", val_check_interval=2)
    assert torch.allclose(model.standardize.location, x.mean(0), atol=20)
    samples = model.sample(64, generator=torch.Generator().manual_seed(0))
    assert (samples.mean(0) - 1000).abs().max() < 300
    again = zoo.load(tmp_path / "run")
    assert torch.allclose(again.sample(64, generator=torch.Generator().manual_seed(0)), samples, rtol=1e-4)
    if name != "ae":
        core = model.export_module()
        inputs = core.draw(4, torch.Generator().manual_seed(0))
        exported = torch.export.export(core, inputs).module()
        assert torch.allclose(exported(*inputs), core(*inputs), rtol=1e-4)


def test_a_checkpoint_without_the_buffers_loads_as_the_identity():
    model = VAE(SPEC, latent_dim=2)
    model.standardize.scale.fill_(5.0)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("standardize.")}
    model.load_state_dict(state)
    assert torch.equal(model.standardize.scale, torch.ones(3))
