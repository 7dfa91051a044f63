"""Baselines against scikit-learn, SciPy, closed forms and enumeration."""

import itertools
import math

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as EM

import zoo
from zoo.core.spaces import Image, Vector
from zoo.data.batch import Batch
from zoo.data.image.digits import Digits
from zoo.data.loader import make_generator
from zoo.models.baselines.copies import TrainingSetBootstrap
from zoo.models.baselines.gmm import GaussianMixtureModel
from zoo.models.baselines.noise import UniformNoise
from zoo.models.baselines.pixel_mixture import PixelMixtureModel
from zoo.models.baselines.ppca import PPCA
from zoo.nn.distributions.mixtures import PixelMixture

PLANE = zoo.DataSpec(Vector(2), name="plane")


def correlated(n: int = 400, dim: int = 6) -> torch.Tensor:
    mix = torch.randn(dim, dim, generator=make_generator(1))
    return torch.randn(n, dim, generator=make_generator(2)) @ mix + torch.arange(dim)


def vectors(dim: int) -> zoo.DataSpec:
    return zoo.DataSpec(Vector(dim), name="vectors")


def tiny(levels: int = 3, shape: tuple[int, ...] = (1, 2, 2)) -> zoo.DataSpec:
    return zoo.DataSpec(Image(*shape, levels=levels), name="tiny")


def every_image(spec: zoo.DataSpec) -> torch.Tensor:
    levels = torch.arange(spec.image.levels) / (spec.image.levels - 1)
    return torch.tensor(list(itertools.product(levels.tolist(), repeat=spec.size))).view(-1, *spec.shape)


def pictures(spec: zoo.DataSpec, n: int = 300) -> torch.Tensor:
    """Of two kinds, dark and bright, so that a mixture has something to find."""
    dark = torch.rand(n, 1, 1, 1, generator=make_generator(3)) < 0.4
    x = torch.where(dark, 0.15, 0.8) + 0.25 * torch.randn(n, *spec.shape, generator=make_generator(4))
    return (x.clamp(0, 1) * (spec.image.levels - 1)).round() / (spec.image.levels - 1)


# -- densities --------------------------------------------------------------------------------------------------------


def test_gmm_scores_like_scikit_learn():
    x = correlated()
    model = GaussianMixtureModel(vectors(6), n_components=3)
    model.fit(x)
    centre, scale = x.double().mean(0), x.double().std(0, correction=0)
    white = ((x - centre) / scale).numpy()
    with pytest.warns(ConvergenceWarning):  # stopped after as many steps as the model takes
        oracle = EM(3, reg_covar=1e-3, max_iter=30, random_state=0).fit(white)
    want = torch.from_numpy(oracle.score_samples(white)) - scale.log().sum()
    torch.testing.assert_close(model.log_prob(x).double(), want, rtol=1e-3, atol=1e-3)


def test_gmm_survives_pixels_that_never_change():
    x = torch.tensor(load_digits().images[:300, None] / 16, dtype=torch.float32)
    assert (x.flatten(1).std(0) == 0).any()
    model = GaussianMixtureModel(Digits().spec, n_components=2)
    model.fit(x.flatten(1))
    assert (model.log_prob(x).abs() < 300).all()
    without = GaussianMixtureModel(Digits().spec, n_components=2, noise=0.0)
    without.fit(x.flatten(1))
    assert without.log_prob(x).min() > 100, "the density of a constant pixel is that of its floor"


def test_ppca_scores_like_a_normal_with_the_explicit_covariance():
    x = correlated()
    model = PPCA(vectors(6), latent_dim=2)
    model.fit(x)
    covariance = model.weight @ model.weight.T + model.variance * torch.eye(6)
    want = multivariate_normal(model.mean.numpy(), covariance.double().numpy()).logpdf(x.numpy())
    np.testing.assert_allclose(model.log_prob(x).numpy(), want, rtol=1e-4, atol=1e-4)
    other = multivariate_normal(model.mean.numpy(), np.eye(6)).logpdf(x.numpy())
    assert np.abs(other - want).max() > 1


@pytest.mark.parametrize("q", [1, 3, 5])
def test_ppca_reaches_the_maximum_of_its_likelihood(q):
    """Tipping & Bishop 1999: equation 8's maximum, and no turn or scaling of W does better."""
    x = correlated()
    model = PPCA(vectors(6), latent_dim=q)
    model.fit(x)
    values = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    rest = values[q:].mean()
    want = -0.5 * (values[:q].log().sum() + (6 - q) * rest.log() + 6 * math.log(2 * math.pi) + 6)
    reached = model.log_prob(x).mean()
    assert reached.item() == pytest.approx(want.item(), abs=1e-4)
    assert reached.item() == pytest.approx(PCA(q).fit(x.numpy()).score(x.numpy()), abs=0.02)  # it divides by N - 1
    for change in (1.05, 0.95):
        model.weight *= change
        assert model.log_prob(x).mean() < reached
        model.weight /= change


def test_ppca_without_noise_reconstructs_like_pca():
    x = correlated()
    pca, model = PCA(2).fit(x.numpy()), PPCA(vectors(6), latent_dim=2)
    model.fit(x)
    noisy = model.reconstruct(x)
    model.variance.fill_(1e-9)
    want = torch.from_numpy(pca.inverse_transform(pca.transform(x.numpy())))
    torch.testing.assert_close(model.reconstruct(x), want, rtol=1e-3, atol=1e-3)
    assert (noisy - want).abs().max() > 0.05, "the posterior mean is drawn to the mean"


def test_ppca_samples_have_its_covariance():
    model = PPCA(vectors(6), latent_dim=2)
    model.fit(correlated())
    draws = model.sample(60_000, generator=make_generator(0))
    want = model.weight @ model.weight.T + model.variance * torch.eye(6)
    assert (torch.cov(draws.T) - want).abs().max() < 0.03 * want.abs().max()
    means = model.sample(1000, generator=make_generator(0), noise=False) - model.mean
    assert torch.linalg.matrix_rank(means, rtol=1e-4) == 2


# -- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "components"), [(2, 4), (3, 2), (5, 1)])
def test_pixel_mixture_sums_to_one_over_all_images(levels, components):
    spec = tiny(levels)
    model = PixelMixtureModel(spec, n_components=components)
    model.fit(model.statistics(Batch(pictures(spec), torch.zeros(300))))
    log_p = model.log_prob(every_image(spec))
    assert log_p.std() > 0.2, "far from uniform"
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_pixel_mixture_scores_like_the_formula():
    model = PixelMixtureModel(tiny(3), n_components=2)
    x = pictures(tiny(3))
    model.fit(model.statistics(Batch(x, torch.zeros(300))))
    p, level = model.density.log_probs.exp(), (x * 2).round().long().flatten(1)
    each = torch.stack([p[level, k, torch.arange(4)].prod(1) for k in range(2)])  # (K, N)
    want = (model.density.log_weights.exp()[:, None] * each).sum(0).log()
    torch.testing.assert_close(model.log_prob(x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [2, 4])
def test_em_never_lowers_what_it_maximises(levels):
    spec = tiny(levels, (1, 3, 3))
    x = PixelMixtureModel(spec).statistics(Batch(pictures(spec), torch.zeros(300)))
    history = PixelMixture(9, levels, 5).double().fit(x, 1e-6, steps=60, tolerance=-1.0)  # as good as the likelihood
    assert len(history) == 60
    assert min(np.diff(history)) > -1e-9
    assert history[-1] > history[0] + 0.1
    smoothed = PixelMixture(9, levels, 5).double().fit(x, 2.0, steps=60, tolerance=-1.0)
    assert min(np.diff(smoothed)) > -1e-9


def test_two_components_find_two_kinds_of_images():
    spec = tiny(2, (1, 4, 4))
    model = PixelMixtureModel(spec, n_components=2)
    x = pictures(spec)
    model.fit(model.statistics(Batch(x, torch.zeros(300))))
    assert sorted(model.density.log_weights.exp().tolist()) == pytest.approx([0.4, 0.6], abs=0.08)
    one = PixelMixtureModel(spec, n_components=1)
    one.fit(one.statistics(Batch(x, torch.zeros(300))))
    assert model.log_prob(x).mean() > one.log_prob(x).mean() + 1


def test_one_component_is_the_counted_frequencies():
    spec, smoothing = tiny(4), 2.0
    model = PixelMixtureModel(spec, n_components=1, smoothing=smoothing)
    x = pictures(spec)
    model.fit(model.statistics(Batch(x, torch.zeros(300))))
    for pixel in range(4):
        counts = torch.bincount((x.flatten(1)[:, pixel] * 3).round().long(), minlength=4)
        want = (counts + smoothing / 4) / (300 + smoothing)
        torch.testing.assert_close(model.density.log_probs[:, 0, pixel].exp(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bits_of_what_is_uniform_are_the_logarithm_of_the_levels(levels):
    spec = tiny(levels)
    x = torch.randint(levels, (8, *spec.shape), generator=make_generator(0)) / (levels - 1)
    model = PixelMixtureModel(spec, n_components=3)
    assert model.loss(Batch(x, x))["bits_per_dim"].item() == pytest.approx(math.log2(levels), rel=1e-5)
    everything = torch.arange(levels)[:, None].expand(-1, spec.size)  # each level once
    model.density.fit(everything.contiguous(), 1.0, 1)
    one = PixelMixtureModel(spec, n_components=1)
    one.fit(everything.to(torch.uint8))
    assert one.loss(Batch(x, x))["bits_per_dim"].item() == pytest.approx(math.log2(levels), rel=1e-4)


def test_pixel_mixture_draws_from_its_density():
    spec = tiny(3)
    model = PixelMixtureModel(spec, n_components=2)
    model.fit(model.statistics(Batch(pictures(spec), torch.zeros(300))))
    p, n = model.log_prob(every_image(spec)).exp(), 40_000
    code = (model.sample(n, generator=make_generator(1)).flatten(1) * 2).round().long() @ torch.tensor([27, 9, 3, 1])
    counts, likely = torch.bincount(code, minlength=81), n * p > 5
    chi2 = ((counts - n * p)[likely].square() / (n * p[likely])).sum()
    assert chi2 < likely.sum() + 3.5 * math.sqrt(2 * likely.sum())
    assert counts[~likely].sum() < 200


# -- noise and copies -------------------------------------------------------------------------------------------------


def test_noise_is_uniform():
    spec = tiny(5)
    image = UniformNoise(spec)
    assert image.log_prob(every_image(spec)[:7]).tolist() == pytest.approx([-4 * math.log(5)] * 7)
    draws = image.sample(4000, generator=make_generator(0))
    assert sorted(set((draws * 4).flatten().tolist())) == [0, 1, 2, 3, 4]
    assert abs(torch.bincount((draws * 4).long().flatten()) - 3200).max() < 250
    box = UniformNoise(PLANE)
    box.fit(torch.tensor([[-1.0, 2.0], [3.0, 2.5], [0.0, 2.2]]))
    inside, outside = torch.tensor([[0.0, 2.1], [-1.0, 2.5]]), torch.tensor([[0.0, 2.6], [-1.1, 2.2]])
    assert box.log_prob(inside).tolist() == pytest.approx([-math.log(2)] * 2)
    assert box.log_prob(outside).tolist() == [-math.inf] * 2
    both = box.loss(Batch(torch.cat([inside, outside]), torch.zeros(4)))
    assert (both["loss"].item(), both["outside"].item()) == pytest.approx((math.log(2), 0.5))
    draws = box.sample(4000, generator=make_generator(0))
    assert box.in_support(draws).all()
    assert draws.mean(0).tolist() == pytest.approx([1.0, 2.25], abs=0.1)


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_every_copy_is_a_training_sample(kind, tmp_path):
    data = Digits(batch_size=100) if kind == "image" else zoo.create_data("moons", batch_size=100)
    data.setup()
    model = TrainingSetBootstrap(data.spec, max_samples=600)
    fit(model, data)
    indices = torch.arange(len(data.train[0]))
    train = data.fetch(data.train, indices, make_generator(0), train=False)[0].flatten(1)
    drawn = model.sample(200, generator=make_generator(0)).flatten(1)
    assert torch.cdist(drawn.double(), train.double()).min(1).values.max() < 1e-6
    assert len(drawn.unique(dim=0)) > 100
    assert len(model.stored) == 600
    assert model.stored.dtype == (torch.uint8 if kind == "image" else torch.float32)
    assert model.loss(Batch(model.stored_samples(), torch.zeros(600)))["loss"] == 0
    model.trainer.save_checkpoint(tmp_path / "copies.ckpt")
    assert torch.equal(zoo.load(tmp_path / "copies.ckpt").stored, model.stored)


def test_the_distance_of_copies_is_that_of_brute_force():
    model = TrainingSetBootstrap(PLANE, max_samples=50)
    model.fit(torch.randn(50, 2, generator=make_generator(0)))
    x = torch.randn(20, 2, generator=make_generator(1))
    want = (x[:, None] - model.stored).square().sum(2).min(1).values.mean()
    assert model.loss(Batch(x, x))["loss"].item() == pytest.approx(want.item(), rel=1e-5)


# -- fitting in a training --------------------------------------------------------------------------------------------


def fit(model, data, **options):
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **options,
    )  # fmt: skip
    trainer.fit(model, data)
    return trainer


def test_a_training_fits_to_the_whole_training_set_and_leaves_randomness_alone():
    data = Digits(batch_size=500)  # of 1,437: two batches, and a rest that training would leave out
    data.setup()
    model = PixelMixtureModel(data.spec, n_components=1, smoothing=1e-9)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(model, data)
    assert torch.equal(before, torch.get_rng_state())
    assert model.fitted
    assert model.trainer.global_step == 1
    bright = (data.train[0] == data.train[0].max()).float().mean(0).flatten()
    torch.testing.assert_close(model.density.log_probs[-1, 0].exp(), bright, rtol=1e-4, atol=1e-6)


def test_loaders_of_others_are_read_too():
    x = correlated(64)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(64)), batch_size=16)
    model = PPCA(vectors(6), latent_dim=2)
    fit(model, loader)
    torch.testing.assert_close(model.mean, x.mean(0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(zoo.ZooError, match="12,288 values, and full covariances allow 1,024"):
        GaussianMixtureModel(zoo.DataSpec(Image(3, 64, 64)))
    with pytest.raises(zoo.ZooError, match=r"condition: .* is unconditional"):
        zoo.create_model("copies", data=PLANE).sample(2, condition=torch.zeros(2))
