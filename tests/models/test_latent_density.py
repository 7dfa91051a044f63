"""A density of latents that is fitted in training: for autoencoders, and for every VAE by model.prior=fitted."""

from pathlib import Path

import pytest
import torch

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.metrics.frechet import frechet, moments

NETWORKS = {"encoder": {"name": "mlp", "width": 32}, "decoder": {"name": "mlp", "width": 32}}


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", ["vae", "cvae", "ae"])
def test_training_fits_it_and_files_keep_it(name: str, tmp_path: Path) -> None:
    y = torch.arange(400) % 2
    x = torch.stack([4.0 * y - 2, 2 - 4.0 * y], 1) + 0.1 * torch.randn(400, 2)
    mixture = {"n_components": 4} if name == "ae" else {"prior": {"name": "fitted", "n_components": 4}}
    options = {"latent_dim": 2, **mixture, **NETWORKS}
    model = zoo.create_model(name, data=DataSpec(Vector(2), Label(2), name="in_memory"), **options)
    zoo.fit(model, (x, y), max_steps=20, progress=False, folder=tmp_path / "run", val_check_interval=10)
    latents = model.latents_to_fit(Batch(x, y)).detach()
    drawn = model.sample_prior(400, seed())
    spread = float(moments(latents)[1:, 1:].trace() / 400)
    assert float(frechet(moments(latents), moments(drawn))) < 0.1 * spread
    again = zoo.load(tmp_path / "run")
    samples = model.sample(20, generator=seed())
    torch.testing.assert_close(again.sample(20, generator=seed()), samples)
    core = again.export_module()
    torch.testing.assert_close(core(*core.draw(20, seed())), samples, rtol=1e-4, atol=1e-4)
    assert model.interpolate(3, 4, generator=seed()).shape == (3, 4, 2)


def test_a_fitted_prior_changes_samples_only() -> None:
    spec = DataSpec(Vector(2), Label(2), name="points")
    models = []
    for prior in ("standard", "fitted"):
        torch.manual_seed(0)
        models.append(zoo.create_model("vae", data=spec, prior=prior, latent_dim=2, **NETWORKS).eval())
    x = torch.randn(8, 2)
    losses, bounds = [], []
    for model in models:
        torch.manual_seed(1)
        losses.append(model.loss(Batch(x, torch.zeros(8, dtype=torch.long)))["loss"])
        bounds.append(model.iw_bound(x, 3))
    assert torch.equal(*losses)
    assert torch.equal(*bounds)
    with pytest.raises(ZooError, match="cannot sample yet"):
        models[1].sample(2)


@pytest.mark.parametrize("name", ["ae", "gmm"])
def test_one_training_sample(name: str) -> None:
    model = zoo.create_model(name, data=DataSpec(Vector(2), None, name="points"), **(NETWORKS if name == "ae" else {}))
    model.density.fit(torch.ones(1, model.density.means.shape[1]))
    assert torch.allclose(model.density.sample(5, seed()), torch.ones(1), atol=1e-3)
