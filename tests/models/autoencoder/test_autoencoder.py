"""The autoencoder's objectives against PCA, autograd and closed forms; the density of its latents."""

import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as L
import torch
from torch import distributions as D
from torch.utils.data import DataLoader, TensorDataset

from zoo.config.compose import compose, to_plain
from zoo.core.errors import ZooError
from zoo.core.registry import build
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.image.digits import Digits
from zoo.interop.loading import load
from zoo.models.abilities import SupportsInterpolation, SupportsLatents, SupportsLikelihood
from zoo.models.ability import supports
from zoo.models.autoencoder.autoencoder import Autoencoder, kl_to_rate, l1

POINTS = DataSpec(Vector(6), Label(3), name="points")
DIGITS = DataSpec(Image(1, 8, 8, levels=17), Label(10), name="digits")
SMALL = {"encoder": {"name": "mlp", "width": 16}, "decoder": {"name": "mlp", "width": 16}}


def batch(spec: DataSpec, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, *spec.shape) if isinstance(spec.x, Image) else torch.randn(n, *spec.shape)
    return x, torch.randint(0, spec.n_classes, (n,))


def fit(model: Autoencoder, steps: int, data=None, **options) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(model, data or Digits(batch_size=64))
    return trainer


def test_best_linear_autoencoder_leaves_the_discarded_eigenvalues():
    """The optimum of squared error through d linear latents is PCA (Baldi & Hornik 1989)."""
    x = torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))  # ascending
    linear = {"name": "mlp", "depth": 0}
    model = Autoencoder(POINTS, latent_dim=2, encoder=linear, decoder=linear).double()
    enc, dec = model.encoder.layers[0], model.decoder.layers[0]
    with torch.no_grad():
        enc.weight.copy_(vectors[:, -2:].T)
        dec.weight.copy_(vectors[:, -2:])
        enc.bias.zero_()
        dec.bias.zero_()
    loss = model.loss(Batch(x, torch.zeros(500).long()))["loss"]
    loss.backward()
    torch.testing.assert_close(loss.detach(), values[:-2].sum(), rtol=1e-6, atol=0)
    for p in model.parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, torch.zeros_like(p), atol=1e-9, rtol=0)


def test_training_a_linear_autoencoder_reaches_pca():
    x = torch.randn(300, 6, dtype=torch.float64) @ torch.diag(torch.tensor([3.0, 2, 1, 0.5, 0.5, 0.2]).double())
    x = x - x.mean(0)
    values = torch.linalg.eigvalsh(x.T @ x / len(x))
    linear = {"name": "mlp", "depth": 0}
    model = Autoencoder(POINTS, latent_dim=2, encoder=linear, decoder=linear).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss(Batch(x, torch.zeros(300).long()))["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(closure().detach()) == pytest.approx(float(values[:-2].sum()), rel=1e-5)


@pytest.mark.parametrize("spec", [POINTS, DIGITS], ids=str)
def test_exact_contraction_is_the_norm_of_autograds_jacobian(spec):
    encoder = {"name": "conv", "width": 4} if isinstance(spec.x, Image) else SMALL["encoder"]
    model = Autoencoder(
        spec, latent_dim=4, latent_activation="sigmoid", contractive_weight=1.0, num_probes=0, encoder=encoder
    ).double()
    x = batch(spec, 3)[0].double()
    want = torch.stack([torch.func.jacrev(lambda one: model.latents(one[None])[0])(row).square().sum() for row in x])
    torch.testing.assert_close(model.jacobian_norm(x), want)
    terms = model.loss(Batch(x, torch.zeros(3).long()))
    torch.testing.assert_close(terms["contraction"], want.mean())


def test_estimated_contraction_is_unbiased():
    model = Autoencoder(POINTS, latent_dim=4, contractive_weight=1.0, num_probes=400, **SMALL)
    exact = Autoencoder(POINTS, latent_dim=4, contractive_weight=1.0, num_probes=0, **SMALL)
    exact.load_state_dict(model.state_dict())
    x = batch(POINTS, 1)[0]
    with torch.no_grad():  # rows of the Jacobian, to know the estimate's standard error
        z_of = torch.func.jacrev(lambda one: model.latents(one[None])[0])(x[0])
    gram = z_of @ z_of.T
    variance = 2 * (gram.square().sum() - gram.diagonal().square().sum())  # of v'Gv for random signs v
    error = math.sqrt(float(variance) / 4000)
    estimates = torch.stack([model.jacobian_norm(x) for _ in range(10)]).detach()
    assert abs(float(estimates.mean()) - float(exact.jacobian_norm(x).detach())) < 4 * error


def test_contraction_trains_and_works_in_inference_mode():
    model = Autoencoder(POINTS, latent_dim=3, contractive_weight=0.5, **SMALL)
    xy = batch(POINTS)
    terms = model.loss(xy)
    terms["contraction"].backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0
        for n, p in model.encoder.named_parameters()
        if "4.bias" not in n and "weight" in n
    )
    with torch.inference_mode():
        inside = model.loss(Batch(xy[0].clone(), xy[1]))
    assert inside["contraction"].isfinite()
    assert not inside["contraction"].requires_grad


def test_sparsity_is_the_divergence_of_bernoullis():
    z = torch.rand(50, 4)
    want = D.kl_divergence(D.Bernoulli(probs=torch.tensor(0.2)), D.Bernoulli(probs=z.mean(0))).sum()
    torch.testing.assert_close(kl_to_rate(z, 0.2), want)
    assert float(kl_to_rate(torch.full((3, 4), 0.2), 0.2)) == pytest.approx(0, abs=1e-6)
    for rate in (0.0, 1.0):  # the limits, and activations that saturate
        assert kl_to_rate(torch.tensor([[0.0, 1.0]]), rate).isfinite()
    assert float(l1(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))) == 3.0


def test_penalties_are_added_with_their_weights():
    x, y = batch(DIGITS)
    options = {
        "latent_activation": "sigmoid",
        "sparsity": "kl",
        "sparsity_weight": 0.3,
        "contractive_weight": 0.7,
        "num_probes": 0,
    }
    terms = Autoencoder(DIGITS, **options, **SMALL).loss(Batch(x, y))
    total = terms["reconstruction"] + 0.3 * terms["sparsity"] + 0.7 * terms["contraction"]
    torch.testing.assert_close(terms["loss"], total)


def test_squared_error_is_summed_over_dimensions_and_averaged_over_samples():
    model, (x, y) = Autoencoder(DIGITS, **SMALL), batch(DIGITS)
    for p in model.decoder.parameters():
        torch.nn.init.zeros_(p)
    torch.testing.assert_close(model.loss(Batch(x, y))["loss"], x.square().sum() / 6)
    torch.testing.assert_close(model.loss(Batch(torch.cat([x, x]), torch.cat([y, y])))["loss"], x.square().sum() / 6)


def test_noise_is_for_training_only():
    model, (x, y) = Autoencoder(DIGITS, noise=0.5, mask_prob=0.25, **SMALL), batch(DIGITS)
    state = torch.get_rng_state()
    model.eval()
    assert model.corrupt(x) is x
    assert torch.equal(model.loss(Batch(x, y))["loss"], model.loss(Batch(x, y))["loss"])
    assert torch.equal(model.reconstruct(x), model.reconstruct(x))
    assert torch.equal(state, torch.get_rng_state())
    model.train()
    assert not torch.equal(model.loss(Batch(x, y))["loss"], model.loss(Batch(x, y))["loss"])
    x = torch.ones(2000, 1, 8, 8)
    spoilt = model.corrupt(x)
    assert float((spoilt == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(spoilt[spoilt != 0].std()) == pytest.approx(0.5, abs=0.01)
    assert float(spoilt[spoilt != 0].mean()) == pytest.approx(1.0, abs=0.01)


def test_denoising_compares_with_the_clean_data():
    """A network that copies its input pays the noise: the target is not the noisy input."""
    linear = {"name": "mlp", "depth": 0}
    model = Autoencoder(POINTS, latent_dim=6, noise=0.3, encoder=linear, decoder=linear)
    with torch.no_grad():
        for layer in (model.encoder.layers[0], model.decoder.layers[0]):
            layer.weight.copy_(torch.eye(6))
            layer.bias.zero_()
    x = torch.randn(20_000, 6)
    assert float(model.loss(Batch(x, x))["loss"].detach()) == pytest.approx(6 * 0.09, rel=0.03)


CHANGED = {
    "noise": ({}, 0.3),
    "mask_prob": ({}, 0.5),
    "sparsity_target": ({"latent_activation": "sigmoid", "sparsity": "kl"}, 0.4),
    "sparsity_weight": ({"latent_activation": "relu", "sparsity": "l1"}, 2.0),
    "contractive_weight": ({}, 0.5),
    "num_probes": ({"contractive_weight": 1.0}, 0),
    "latent_activation": ({}, "sigmoid"),
    "latent_weight": ({}, 0.5),
    "decoder_penalty": ({}, "l2"),
    "decoder_weight": ({"decoder_penalty": "gradient"}, 2.0),
}


@pytest.mark.parametrize("setting", CHANGED)
def test_every_setting_of_the_objective_changes_it(setting):
    base, value = CHANGED[setting]
    losses = []
    for options in (base, {**base, setting: value}):
        torch.manual_seed(0)
        model = Autoencoder(DIGITS, **options, **SMALL)
        torch.manual_seed(0)
        losses.append(float(model.loss(batch(DIGITS))["loss"].detach()))
    assert losses[0] != losses[1]


@pytest.mark.parametrize("setting", [{"lr": 1e-2}, {"betas": (0.0, 0.5)}, {"weight_decay": 1.0}, {"warmup": 5}])
def test_every_setting_of_the_optimizer_changes_the_weights(setting):
    def weights(**options):
        torch.manual_seed(0)
        model = Autoencoder(DIGITS, latent_dim=2, n_components=2, **options, **SMALL)
        fit(model, 2)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert not torch.equal(weights(), weights(optimizer={"name": "adamw", **setting}))


def test_sparsity_kl_requires_probabilities():
    with pytest.raises(ZooError, match=r"model.sparsity=kl: .* Set model.latent_activation=sigmoid"):
        Autoencoder(DIGITS, sparsity="kl")


def test_sampling_before_training_is_refused_with_the_remedy():
    model = Autoencoder(DIGITS, **SMALL)
    for draw in (lambda: model.sample(3), lambda: model.interpolate(2, 3)):
        with pytest.raises(ZooError, match=r"cannot sample yet.*Train it"):
            draw()


def spread(model: Autoencoder) -> float:
    """Return the gap in nats between the model's latent density and one fitted to the latents of the training data."""
    data = Digits()
    data.load()
    z = model.encode(data.train[0])
    fresh = Autoencoder(DIGITS, latent_dim=model.latent_dim, n_components=len(model.density.weights), **SMALL).density
    fresh.fit(z)
    return float((fresh.log_prob(z).mean() - model.density.log_prob(z).mean()).abs())


def test_density_belongs_to_the_weights_at_every_validation_and_at_the_end():
    at_validation = []

    class Watch(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            at_validation.append(spread(pl_module))
            assert not pl_module.training

    model = Autoencoder(DIGITS, latent_dim=3, n_components=4, optimizer={"name": "adamw", "lr": 1e-2}, **SMALL)
    options = {"val_check_interval": 20, "check_val_every_n_epoch": None, "callbacks": [Watch()]}
    fit(model, 50, **options)
    assert len(at_validation) == 2
    assert max(at_validation) < 0.15
    assert spread(model) < 0.15  # fitted after step 50 too, though the last validation was at 40
    stale = {k: v.clone() for k, v in model.density.state_dict().items()}
    fit(model, 60)
    model.density.load_state_dict(stale)
    assert spread(model) > 0.15  # negative control: an old density does not fit


def test_fitting_changes_no_training(monkeypatch):
    """Weights after training are the same with and without it, also with torch's own loader."""

    def weights() -> torch.Tensor:
        torch.manual_seed(0)
        model = Autoencoder(DIGITS, latent_dim=2, n_components=2, noise=0.1, **SMALL)
        loader = DataLoader(TensorDataset(*batch(DIGITS, 64)), 16, shuffle=True)
        trainer = L.Trainer(
            max_steps=12, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            val_check_interval=3, check_val_every_n_epoch=None,
        )  # fmt: skip
        held_out = DataLoader(TensorDataset(*batch(DIGITS, 8)), 8)
        trainer.fit(model, loader, held_out)
        assert model.density.fitted == fits
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    fits = True
    with_fit = weights()
    fits = False
    monkeypatch.setattr(Autoencoder, "_fit_density", lambda self: None)
    assert torch.equal(with_fit, weights())


def test_checkpoint_carries_the_density(tmp_path):
    model = Autoencoder(DIGITS, latent_dim=3, n_components=4, **SMALL)
    fit(model, 5).save_checkpoint(tmp_path / "ae.ckpt")
    again = load(tmp_path / "ae.ckpt")
    assert isinstance(again, Autoencoder)
    seeds = [torch.Generator().manual_seed(0) for _ in range(4)]
    assert torch.equal(model.sample(5, generator=seeds[0]), again.sample(5, generator=seeds[1]))
    assert torch.equal(model.interpolate(2, 3, generator=seeds[2]), again.interpolate(2, 3, generator=seeds[3]))
    x = batch(DIGITS)[0]
    assert torch.equal(model.reconstruct(x), again.reconstruct(x))


def test_other_processes_take_over_the_density_of_the_first():
    first, second = (Autoencoder(POINTS, latent_dim=2, n_components=2, **SMALL) for _ in range(2))
    sent = []

    def trainer(rank: int) -> SimpleNamespace:
        def broadcast(state):
            if rank == 0:
                sent.append(state)
            return sent[0]

        progress = SimpleNamespace(total=SimpleNamespace(ready=4))
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        return SimpleNamespace(
            is_global_zero=rank == 0,
            train_dataloader=[batch(POINTS, 20)] if rank == 0 else [None],  # the second must not look at its own
            strategy=SimpleNamespace(broadcast=broadcast),
            fit_loop=loop,
        )

    for rank, model in enumerate((first, second)):
        model._trainer = trainer(rank)  # type: ignore[assignment]
        model.on_validation_start()
    z = torch.randn(5, 2)
    assert torch.equal(first.density.log_prob(z), second.density.log_prob(z))


@pytest.mark.slow  # starting processes takes most of a minute where cores are few
def test_two_processes_train_and_share_the_density(tmp_path):
    model = Autoencoder(DIGITS, latent_dim=2, n_components=2, **SMALL)
    trainer = fit(model, 4, strategy="ddp_spawn", devices=2, use_distributed_sampler=False)
    trainer.save_checkpoint(tmp_path / "ae.ckpt")
    assert load(tmp_path / "ae.ckpt").sample(3).shape == (3, 1, 8, 8)


def test_diverged_latents_are_reported(monkeypatch):
    model = Autoencoder(DIGITS, latent_dim=2, n_components=2, **SMALL)
    monkeypatch.setattr(Autoencoder, "latents", lambda self, x: self.encoder(x) * float("nan"))
    with pytest.raises(ZooError, match=r"training has diverged. Lower model.optimizer.lr"):
        fit(model, 2)


def test_labels_mean_nothing():
    with pytest.raises(ZooError, match=r"condition: .* is unconditional"):
        Autoencoder(DIGITS, **SMALL).sample(2, condition=torch.tensor([1, 2]))


def test_protocols():
    model = Autoencoder(DIGITS, **SMALL)
    assert supports(model, SupportsLatents)
    assert supports(model, SupportsInterpolation)
    assert not supports(model, SupportsLikelihood)


@pytest.mark.parametrize("recipe", ["ae", "denoising_ae", "sparse_ae", "contractive_ae"])
@pytest.mark.parametrize("spec", [DIGITS, DataSpec(Image(3, 24, 40), Label(3), name="wide"), POINTS], ids=str)
def test_recipes_compose_train_and_sample_on_any_data(recipe, spec):
    settings = {k: v for k, v in to_plain(compose(f"model={recipe}").model).items() if k != "training"}
    model = build("model", settings, spec)
    loader = DataLoader(TensorDataset(*batch(spec, 24)), 8)
    trainer = L.Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader, loader)
    sample = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert sample.shape == (5, *spec.shape)
    assert sample.isfinite().all()
    assert model.interpolate(2, 3).shape == (2, 3, *spec.shape)


# -- regularised autoencoders (Ghosh et al. 2019) ------------------------------------------------------------------


def test_a_regularised_linear_autoencoder_reaches_its_closed_form():
    """Both penalties together are a nuclear norm (Srebro et al. 2005): values shrink by sqrt(N beta lambda / 2).

    Negative control: without the penalties, the optimum is that of PCA, which is lower.
    """
    torch.manual_seed(0)
    x = torch.randn(300, 6, dtype=torch.float64) @ torch.diag(torch.tensor([3.0, 2, 1, 0.5, 0.5, 0.2]).double())
    x = x - x.mean(0)
    n, beta, weight = len(x), 0.5, 0.8
    linear = {"name": "mlp", "depth": 0}
    options = {"latent_weight": beta, "decoder_penalty": "l2", "decoder_weight": weight}
    model = Autoencoder(POINTS, latent_dim=3, encoder=linear, decoder=linear, **options).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=1000, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss(Batch(x, torch.zeros(n).long()))["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    values, tau = torch.linalg.svdvals(x), math.sqrt(n * beta * weight / 2)
    kept = (values[:3] - tau).clamp(min=0)
    want = ((values[:3] - kept).square().sum() + values[3:].square().sum() + 2 * tau * kept.sum()) / n
    assert float(closure().detach()) == pytest.approx(float(want), rel=1e-5)
    assert float(values[3:].square().sum() / n) < 0.9 * float(want)


@pytest.mark.parametrize("spec", [POINTS, DIGITS], ids=str)
def test_the_decoders_gradient_penalty_is_the_norm_of_autograds_jacobian(spec):
    model = Autoencoder(
        spec, latent_dim=4, decoder_penalty="gradient", decoder_weight=0.3, num_probes=0, **SMALL
    ).double()
    x = batch(spec, 3)[0].double()
    z = model.encode(x)
    rows = [torch.func.jacrev(lambda one: model.decoder(one[None])[0])(row).square().sum() for row in z]
    terms = model.loss(Batch(x, torch.zeros(3).long()))
    torch.testing.assert_close(terms["decoder_penalty"], torch.stack(rows).mean())
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.3 * terms["decoder_penalty"])
    terms["decoder_penalty"].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.decoder.parameters())
    with torch.inference_mode():
        assert model.loss(Batch(x.clone(), torch.zeros(3).long()))["decoder_penalty"].isfinite()
    assert model.modules_to_compile() == [model.encoder]


def test_a_spectral_decoder_has_singular_values_of_one():
    decoder = {**SMALL["decoder"], "spectral_norm": True}
    model = Autoencoder(DIGITS, latent_dim=4, encoder=SMALL["encoder"], decoder=decoder)
    for _ in range(60):  # each evaluation in training mode iterates once
        model.decoder(torch.randn(2, 4))
    largest = [torch.linalg.svdvals(m.weight)[0] for m in model.decoder.modules() if isinstance(m, torch.nn.Linear)]
    torch.testing.assert_close(torch.stack(largest), torch.ones(len(largest)), rtol=0.02, atol=0)
