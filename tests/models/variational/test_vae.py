"""The VAE's objectives against closed forms: log-likelihoods of linear-Gaussian models, KLs, gradients."""

import math

import pytest
import pytorch_lightning as L
import torch
from torch import distributions as D
from torch import nn

from zoo.config.compose import compose, to_plain
from zoo.config.recipes import recipes
from zoo.core.errors import ZooError
from zoo.core.registry import build
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.image.digits import Digits
from zoo.interop.loading import load
from zoo.models.abilities import SupportsInterpolation, SupportsLatents, SupportsLikelihood
from zoo.models.ability import supports
from zoo.models.variational.vae import VAE
from zoo.nn.distributions.normal import kl_to_standard
from zoo.nn.losses.importance_weighted import log_mean_exp

POINTS = DataSpec(Vector(5), Label(3), name="points")
DIGITS = DataSpec(Image(1, 8, 8, levels=17), Label(10), name="digits")
SMALL = {"encoder": {"name": "mlp", "width": 16}, "decoder": {"name": "mlp", "width": 16}}


def batch(spec: DataSpec, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, *spec.shape) if isinstance(spec.x, Image) else torch.randn(n, *spec.shape)
    return x, torch.randint(0, spec.n_classes, (n,))


def seeded_loss(model: VAE, xy: tuple[torch.Tensor, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return model.loss(xy)


class LinearGaussian(VAE):
    """x = W z + b + noise, of which log p(x) and p(z | x) are known; q is that, its mean off by `error`."""

    registered_name = "linear_gaussian"

    def __init__(self, error: float = 0.0) -> None:
        likelihood = {"name": "gaussian", "variance": "fixed", "std": 0.6}
        super().__init__(POINTS, latent_dim=2, likelihood=likelihood, decoder={"name": "mlp", "depth": 0})
        self.double()
        linear = self.decoder.layers[0]
        weight, variance = linear.weight.detach(), 0.36
        self.precision = torch.eye(2, dtype=torch.float64) + weight.T @ weight / variance
        self.to_mean = torch.linalg.solve(self.precision, weight.T / variance)
        covariance = weight @ weight.T + variance * torch.eye(5, dtype=torch.float64)
        self.evidence = D.MultivariateNormal(linear.bias.detach(), covariance)
        self.error, self.decoded = error, 0

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.evidence.log_prob(x)

    def sample_posterior_terms(self, x, y, params, k):
        """With the full covariance of the true posterior, which the model's own q cannot express."""
        mean = (x - self.decoder.layers[0].bias.detach()) @ self.to_mean.T + self.error
        q = D.MultivariateNormal(mean, precision_matrix=self.precision)
        z = q.sample((k,))
        self.decoded += k
        log_px = self.likelihood.log_prob(self.params(z.flatten(0, 1)), x.repeat(k, 1)).unflatten(0, (k, -1))
        return log_px, q.log_prob(z) - self.log_prior(z), z


def test_with_the_exact_posterior_every_bound_is_log_p():
    model, x = LinearGaussian(), torch.randn(7, 5, dtype=torch.float64)
    for k in (2, 13):
        torch.testing.assert_close(model.iw_bound(x, k), model.log_prob(x), rtol=0, atol=1e-9)


def test_bounds_rise_with_k_towards_log_p_and_consume_exactly_k():
    torch.manual_seed(1)
    model, x = LinearGaussian(error=0.7), torch.randn(1, 5, dtype=torch.float64).repeat(4000, 1)
    exact = float(model.log_prob(x[:1]))
    bounds, errors = [], []
    for k in (1, 5, 50):
        model.decoded = 0
        if k == 1:  # by weights: the closed-form KL does not hold for this test's posterior
            log_px, log_ratio, _ = model.sample_posterior_terms(x, None, x, 1)
            values = log_mean_exp(log_px - log_ratio)
        else:
            values = model.iw_bound(x, k)
        assert model.decoded == k
        bounds.append(float(values.detach().mean()))
        errors.append(float(values.detach().std()) / math.sqrt(len(values)))
    gap = [later - earlier for earlier, later in zip(bounds, [*bounds[1:], exact], strict=True)]
    assert all(g > 4 * e for g, e in zip(gap, errors, strict=True)), (bounds, exact, errors)
    assert gap[-1] < 0.2 * gap[0]


def test_bound_decodes_exactly_k_rows_for_each_sample_also_in_chunks(monkeypatch):
    monkeypatch.setattr("zoo.models.variational.vae.ROWS", 10)
    model, rows = VAE(POINTS, latent_dim=2, **SMALL), []
    model.decoder.register_forward_hook(lambda _, __, out: rows.append(len(out)))
    x = torch.randn(3, 5)
    for k in (1, 2, 3, 7, 50):
        rows.clear()
        assert model.iw_bound(x, k).shape == (3,)
        assert sum(rows) == 3 * k
        assert max(rows) <= 10


@pytest.mark.parametrize("prior", ["standard", "mixture"])
@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_for_one_sample_the_bound_is_minus_the_loss(prior, objective):
    model, (x, y) = VAE(POINTS, latent_dim=3, prior=prior, objective=objective, **SMALL), batch(POINTS)
    loss = seeded_loss(model, (x, y))["loss"]
    torch.manual_seed(0)
    torch.testing.assert_close(model.iw_bound(x, 1).mean(), -loss)


def test_iwae_loss_is_minus_the_bound_of_as_many_samples():
    model, (x, y) = VAE(POINTS, latent_dim=3, objective="iwae", num_samples=5, **SMALL), batch(POINTS)
    terms = seeded_loss(model, (x, y))
    torch.manual_seed(0)
    torch.testing.assert_close(model.iw_bound(x, 5).mean(), -terms["loss"])
    assert -terms["loss"] > terms["elbo"]  # negative control: the ELBO of the same draws is looser


def test_mixture_of_one_standard_normal_is_the_standard_prior():
    """The Monte Carlo KL of `prior=mixture` has the closed form's mean, within 4 standard errors."""
    model = VAE(POINTS, latent_dim=3, prior={"name": "mixture", "n_components": 1}, num_samples=4000, **SMALL)
    with torch.no_grad():
        model.prior.mixture.means.zero_()
        model.prior.mixture.log_std.zero_()
        x, y = batch(POINTS, 5)
        mean, log_std = model.posterior(x, y)
        _, log_ratio, _ = model.sample_posterior_terms(x, y, model.posterior_params(x, y), 4000)
        error = log_ratio.std(0) / math.sqrt(4000)
        assert ((log_ratio.mean(0) - kl_to_standard(mean, log_std).sum(1)).abs() < 4 * error).all()
        torch.testing.assert_close(
            model.loss(Batch(x, y))["kl"], kl_to_standard(mean, log_std).sum(1).mean(), atol=0.1, rtol=0
        )


def test_iwae_gradient_is_the_weighted_one():
    """The gradient of log mean w is that of log w, weighted by the normalised w (Burda et al. 2015)."""
    model = VAE(POINTS, latent_dim=2, objective="iwae", num_samples=6, **SMALL).double()
    x, y = batch(POINTS)
    x = x.double()
    seeded_loss(model, (x, y))["loss"].backward()
    own = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    torch.manual_seed(0)
    log_px, log_ratio, _ = model.sample_posterior_terms(x, y, model.posterior_params(x, y), 6)
    log_w = log_px - log_ratio
    (-(log_w.softmax(0).detach() * log_w).sum(0).mean()).backward()
    weighted = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(own, weighted, rtol=1e-6, atol=1e-9)
    model.zero_grad()
    torch.manual_seed(0)
    log_px, log_ratio, _ = model.sample_posterior_terms(x, y, model.posterior_params(x, y), 6)
    (-(log_px - log_ratio).mean()).backward()  # negative control: unweighted
    assert not torch.allclose(own, torch.cat([p.grad.flatten() for p in model.parameters()]), rtol=1e-3)


def test_beta_of_one_changes_no_bit():
    xy = batch(DIGITS)
    plain_model = VAE(DIGITS, **SMALL)
    weighted = VAE(DIGITS, beta=1.0, **SMALL)
    weighted.load_state_dict(plain_model.state_dict())
    a, b = seeded_loss(plain_model, xy), seeded_loss(weighted, xy)
    assert all(torch.equal(a[k], b[k]) for k in a)
    torch.testing.assert_close(a["loss"], a["reconstruction"] + a["kl"])
    torch.testing.assert_close(a["loss"], -a["elbo"])


def test_free_bits_are_free():
    """A dimension below its allowance has no gradient through the KL, one above it the whole."""
    model, (x, y) = VAE(POINTS, latent_dim=2, free_bits=0.5, **SMALL), batch(POINTS)
    nn.init.zeros_(model.head.weight)
    with torch.no_grad():  # KL of 0.02 and of 2 nats
        model.head.bias.copy_(torch.tensor([0.2, 2.0, 0.0, 0.0]))
    for p in model.decoder.parameters():  # the reconstruction must not depend on z
        nn.init.zeros_(p)
    terms = model.loss(Batch(x, y))
    terms["loss"].backward()
    assert model.head.bias.grad is not None
    torch.testing.assert_close(model.head.bias.grad, torch.tensor([0.0, 2.0, 0.0, 0.0]))
    torch.testing.assert_close(terms["loss"] - terms["reconstruction"], torch.tensor(0.5 + 2.0))
    torch.testing.assert_close(terms["kl"], torch.tensor(0.02 + 2.0))


def test_annealing_reaches_beta_and_is_no_part_of_validation(monkeypatch):
    model, xy = VAE(POINTS, beta=3.0, kl_warmup_steps=9, **SMALL), batch(POINTS)
    factors = []
    for step in (0, 4, 8, 9, 100):
        monkeypatch.setattr(VAE, "step", step)
        terms = seeded_loss(model.train(), xy)
        factors.append(float(((terms["loss"] - terms["reconstruction"]) / terms["kl"]).detach()))
    assert factors == pytest.approx([0.3, 1.5, 2.7, 3.0, 3.0], rel=1e-4)
    monkeypatch.setattr(VAE, "step", 0)
    terms = seeded_loss(model.eval(), xy)
    assert float(((terms["loss"] - terms["reconstruction"]) / terms["kl"]).detach()) == pytest.approx(3, rel=1e-4)


def test_units_undecided_decoder_costs_784_ln_2():
    model = VAE(DataSpec(Image(1, 28, 28, levels=2), name="binary"), likelihood="bernoulli", **SMALL)
    for p in model.decoder.parameters():
        nn.init.zeros_(p)
    x = torch.randint(0, 2, (4, 1, 28, 28)).float()
    nats = model.loss(Batch(x, torch.zeros(4).long()))["reconstruction"]
    assert float(nats.detach()) == pytest.approx(784 * math.log(2), rel=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"prior": "mixture"}, {"objective": "iwae", "num_samples": 3}, {"conditional": True}]
)
def test_loss_is_a_mean_over_samples(options, monkeypatch):
    """Duplicating or permuting the batch, noise and all, leaves every term as it is."""
    model, (x, y) = VAE(DIGITS, latent_dim=4, **options, **SMALL), batch(DIGITS)
    noise = torch.randn(model.num_samples, len(x), 4)
    order = torch.randperm(len(x))
    for rows in (torch.arange(len(x)), torch.cat([torch.arange(len(x))] * 2), order):
        monkeypatch.setattr(torch, "randn", lambda *_, rows=rows, **__: noise[:, rows])
        terms = model.loss(Batch(x[rows], y[rows]))
        if len(rows) == len(x) and rows is not order:
            first = terms
        for name, value in terms.items():
            torch.testing.assert_close(value, first[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretised_logistic", "categorical"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20)])
def test_every_likelihood_on_every_shape(likelihood, shape):
    spec = DataSpec(Image(*shape, levels=17), Label(4), name="pictures")
    model, (x, y) = VAE(spec, latent_dim=3, likelihood=likelihood), batch(spec, 3)
    model.loss(Batch(x, y))["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for out in (model.sample(5), model.sample(5, noise=True), model.reconstruct(x)):
        assert out.shape[1:] == shape
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert model.interpolate(2, 4).shape == (2, 4, *shape)


def test_protocols_and_determinism():
    model, (x, y) = VAE(DIGITS, **SMALL), batch(DIGITS)
    assert supports(model, SupportsLikelihood)
    assert supports(model, SupportsLatents)
    assert supports(model, SupportsInterpolation)
    state = torch.get_rng_state()
    assert torch.equal(model.encode(x), model.encode(x))
    assert torch.equal(model.reconstruct(x), model.reconstruct(x))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(model.encode(x, sample=True), model.encode(x, sample=True))
    assert torch.equal(seeded_loss(model, (x, y))["loss"], seeded_loss(model, (x, y))["loss"])
    for options in ({}, {"noise": True}):
        pair = [model.sample(4, generator=torch.Generator().manual_seed(1), **options) for _ in range(2)]
        assert torch.equal(*pair)
        assert not torch.equal(pair[0], model.sample(4, generator=torch.Generator().manual_seed(2), **options))


def test_walks_start_and_end_at_draws_and_keep_the_law_of_the_prior():
    model = VAE(POINTS, latent_dim=2, **SMALL)
    model.decode = lambda z, y=None: z  # type: ignore[method-assign]
    walks = model.interpolate(20_000, 3, generator=torch.Generator().manual_seed(0))
    ends = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(walks[:, 0], ends[:20_000])
    torch.testing.assert_close(walks[:, 2], ends[20_000:], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(walks.var(0), torch.ones(3, 2), atol=0.05, rtol=0)


def test_conditional_model_uses_the_label_in_encoder_and_decoder():
    model, (x, y) = VAE(DIGITS, conditional=True, **SMALL), batch(DIGITS)
    other = (y + 1) % 10
    assert not torch.equal(model.encode(x, y), model.encode(x, other))
    z = torch.randn(6, model.latent_dim)
    assert not torch.equal(model.decode(z, y), model.decode(z, other))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    samples = [model.sample(6, condition=c, generator=g) for c, g in zip((y, other), generators, strict=True)]
    assert not torch.equal(*samples)
    assert model.interpolate(2, 3).shape == (2, 3, 1, 8, 8)
    assert model.iw_bound(x, 3, y).shape == (6,)
    with pytest.raises(ZooError, match="Pass the class labels"):
        model.encode(x)


def test_conditional_decoder_learns_what_the_label_means():
    """Each class is one constant: after a few steps, the label alone determines the samples."""
    torch.manual_seed(0)
    spec = DataSpec(Vector(2), Label(2), name="points")
    model = VAE(spec, latent_dim=1, conditional=True, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        y = torch.randint(0, 2, (64,))
        loss = model.loss(Batch((2.0 * y - 1)[:, None] + 0.1 * torch.randn(64, 2), y))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    labels = torch.arange(2).repeat(50)
    signs = model.sample(100, condition=labels).sign()
    assert (signs == (2.0 * labels - 1)[:, None]).float().mean() > 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free_bits": 0.1, "prior": "mixture"}, "model.free_bits=0.1: the KL must be a sum"),
        ({"free_bits": 0.1, "objective": "iwae"}, "model.free_bits=0.1: the KL must be a sum"),
        ({"likelihood": "bernoulli"}, "needs pixels"),
        ({"likelihood": "gausian"}, "did you mean 'gaussian'"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ZooError, match=message):
        VAE(POINTS, **options)


def test_condition_without_labels_is_refused():
    with pytest.raises(ZooError, match=r"condition: .* is unconditional.*model.conditional=true"):
        VAE(DIGITS, **SMALL).sample(2, condition=torch.tensor([1, 2]))


def test_labels_are_asked_for_where_there_are_none():
    with pytest.raises(ZooError, match=r"model.conditional=true: .* has no class labels"):
        VAE(DataSpec(Vector(2), name="moons"), conditional=True)


CHANGED = {
    "beta": 2.0,
    "free_bits": 3.0,
    "kl_warmup_steps": 10,
    "likelihood": {"name": "gaussian", "variance": "fixed", "std": 0.3},
    "prior": "mixture",
    "regularizer": "tc",
    "num_samples": 4,
    "objective": "iwae",
}


@pytest.mark.parametrize("setting", CHANGED)
def test_every_setting_of_the_objective_changes_it(setting):
    samples = {"num_samples": 4} if setting == "objective" else {}
    base = VAE(DIGITS, latent_dim=4, **samples, **SMALL)
    changed = VAE(DIGITS, latent_dim=4, **{**samples, setting: CHANGED[setting]}, **SMALL)
    changed.load_state_dict(base.state_dict(), strict=False)
    xy = batch(DIGITS)
    assert seeded_loss(base, xy)["loss"] != seeded_loss(changed, xy)["loss"]


@pytest.mark.parametrize(
    "setting",
    [{"lr": 1e-2}, {"betas": (0.0, 0.5)}, {"weight_decay": 1.0}, {"warmup": 5}, {"schedule": "linear"}],
)
def test_every_setting_of_the_optimizer_changes_the_weights(setting):
    def weights(**options):
        torch.manual_seed(0)
        model = VAE(DIGITS, latent_dim=2, **options, **SMALL)
        fit(model, 2)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert not torch.equal(weights(), weights(optimizer={"name": "adamw", **setting}))


def fit(model: VAE, steps: int, **options) -> L.Trainer:
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
    trainer.fit(model, datamodule=Digits(batch_size=64))
    return trainer


def test_checkpoint_gives_identical_outputs(tmp_path):
    model = VAE(DIGITS, latent_dim=3, prior="mixture", likelihood="gaussian", conditional=True, **SMALL)
    fit(model, 3).save_checkpoint(tmp_path / "vae.ckpt")
    again = load(tmp_path / "vae.ckpt")
    assert isinstance(again, VAE)
    (x, y), seeds = batch(DIGITS), [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(model.sample(5, generator=seeds[0]), again.sample(5, generator=seeds[1]))
    assert torch.equal(model.encode(x, y), again.encode(x, y))
    assert seeded_loss(model.eval(), (x, y))["loss"] == seeded_loss(again.eval(), (x, y))["loss"]


def test_bfloat16_loss_is_close():
    model, xy = VAE(DIGITS, **SMALL), batch(DIGITS, 64)
    full = seeded_loss(model, xy)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        low = seeded_loss(model, xy)["loss"]
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=1e-2, atol=0)


@pytest.mark.parametrize("recipe", [name for name in recipes("model") if name in ("vae", "beta_vae", "iwae", "cvae")])
@pytest.mark.parametrize("spec", [DIGITS, DataSpec(Image(3, 24, 40), Label(3), name="wide"), POINTS], ids=str)
def test_recipes_compose_and_take_a_step_on_any_data(recipe, spec):
    settings = {k: v for k, v in to_plain(compose(f"model={recipe}").model).items() if k != "training"}
    model = build("model", settings, spec)
    xy = batch(spec, 2)
    model.loss(xy)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.sample(2).shape == (2, *spec.shape)


def test_the_learned_variance_becomes_the_squared_error(monkeypatch):
    """Its optimum, whatever the weight decay of the networks."""
    torch.manual_seed(0)
    optimizer = {"name": "adamw", "lr": 3e-3, "weight_decay": 1.0, "schedule": "constant", "warmup": 0}
    model = VAE(POINTS, latent_dim=2, optimizer=optimizer, **SMALL)
    monkeypatch.setattr(VAE, "total_steps", 1000)
    optimizer, x = model.configure_optimizers()["optimizer"], 0.1 * torch.randn(256, 5)
    for _ in range(1000):
        optimizer.zero_grad()
        model.loss((x, torch.zeros(256, dtype=torch.long)))["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.decode(model.encode(x, sample=True)) - x).square().mean()
    _, log_std = model.likelihood.mean_and_log_std(torch.zeros(1))
    assert (2 * log_std).exp().item() == pytest.approx(error.item(), rel=0.15)


@pytest.mark.parametrize(("size", "factor"), [(0, 1.0), (64, 1.0), (16, 0.5)])
def test_the_learning_rate_falls_with_the_square_root_of_large_samples(size, factor, monkeypatch):
    monkeypatch.setattr(VAE, "total_steps", 10)
    optimizer = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1, "schedule": "constant", "warmup": 0}
    model = VAE(DIGITS, prior="mixture", optimizer=optimizer, full_lr_size=size, **SMALL)
    groups = model.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] / factor for group in groups] == pytest.approx([1e-2, 1e-2, 3e-2, 1e-1])
    assert [group["weight_decay"] > 0 for group in groups] == [True, False, False, False]


@pytest.mark.parametrize("size", [8, 64, 128])
def test_the_decoder_batch_of_a_bound_is_limited_by_memory(size, monkeypatch):
    monkeypatch.setattr("zoo.models.variational.vae.VALUES", 100_000)
    spec = DataSpec(Image(3, size, size), name="any")
    model = VAE(spec, latent_dim=2, encoder={"name": "mlp", "width": 4}, decoder={"name": "mlp", "width": 4}).eval()
    rows, decode = [], model.params

    def watched(z, y=None):
        rows.append(len(z))
        return decode(z, y)

    model.params = watched
    found = model.iw_bound(torch.rand(5, *spec.shape), k=9)
    assert found.shape == (5,)
    assert sum(rows) == 5 * 9
    assert max(rows) * spec.size <= max(100_000, spec.size)
