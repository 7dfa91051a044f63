"""A density of latents that is fitted in training: for autoencoders, and for every VAE by model.prior=fitted."""

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.metrics.frechet import frechet, moments
from zoo.nn.distributions.mixtures import ClassMixtures
from zoo.nn.samplers.exportable import draw_inputs

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
    latents = model.latents_to_fit(Batch(x, y)).detach()[:, :2]
    drawn = model.sample_prior(400, seed())
    spread = float(moments(latents)[1:, 1:].trace() / 400)
    assert float(frechet(moments(latents), moments(drawn))) < 0.1 * spread
    again = zoo.load(tmp_path / "run")
    samples = model.sample(20, generator=seed())
    torch.testing.assert_close(again.sample(20, generator=seed()), samples)
    core = again.export_module()
    torch.testing.assert_close(core(*core.draw(20, seed())), samples, rtol=1e-4, atol=1e-4)
    assert model.interpolate(3, 4, generator=seed()).shape == (3, 4, 2)


def test_a_conditional_model_has_one_mixture_for_each_class(tmp_path: Path) -> None:
    """Draws of a class are near the latents of this class, and far from those of the other."""
    y = torch.arange(400) % 2
    x = torch.stack([torch.randn(400), torch.randn(400)], 1)  # of equal law: only the encoder separates classes
    options: dict[str, Any] = {"latent_dim": 2, "prior": {"name": "fitted", "n_components": 4}, **NETWORKS}
    model = zoo.create_model("cvae", data=DataSpec(Vector(2), Label(2), name="in_memory"), **options)
    with torch.no_grad():
        model.head.weight[:2, -2:] = torch.tensor([[3.0, -3.0], [0.0, 0.0]])
    zoo.fit(model, (x, y), max_steps=2, progress=False, folder=tmp_path / "run", val_check_interval=2)
    labelled = model.latents_to_fit(Batch(x, y)).detach()
    assert torch.equal(labelled[:, 2].long(), y)
    for label in (0, 1):
        own, other = (labelled[y == which, :2] for which in (label, 1 - label))
        drawn = model.sample_prior(2000, seed(), torch.full((2000,), label))
        spread = float(moments(own)[1:, 1:].trace() / len(own))
        assert float(frechet(moments(own), moments(drawn))) < 0.1 * spread
        assert float(frechet(moments(other), moments(drawn))) > 3 * spread, "negative control"
        z = model.prior.density.mixtures[label].transform(*draw_inputs(model.prior.inputs, 5, seed()))
        condition = torch.full((5,), label)
        torch.testing.assert_close(model.sample(5, condition=condition, generator=seed()), model.decode(z, condition))
    mixed = model.sample_prior(2000, seed())
    assert (mixed[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.1), "labels are drawn"


def test_a_class_without_points_takes_all() -> None:
    mixtures = ClassMixtures(1, 6, 3)
    points = torch.cat([torch.randn(50, 1), 100 + torch.randn(50, 1)])
    mixtures.fit(torch.cat([points, torch.tensor([[0.0], [2.0]]).repeat_interleave(50, 0)], 1))
    assert mixtures.fitted
    means = [float(m.weights @ m.means[:, 0]) for m in mixtures.mixtures]
    assert means == pytest.approx([0, 50, 100], abs=1)


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
