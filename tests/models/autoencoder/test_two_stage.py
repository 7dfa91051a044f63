"""First stages and priors: bounds by enumeration, latents on the scale of their space, one checkpoint, errors."""

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
from torch import Tensor
from torch.distributions import Distribution

import zoo
from tests.contracts.specs import FIRST_STAGE, KL, PAIRS, SIZES, SPECS, examples, make
from tests.fault_injection.equal import unequal
from zoo.cli.main import main
from zoo.config.compose import compose
from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import build
from zoo.core.spaces import Codes, Image, Label, Tokens, Vector
from zoo.data.batch import Batch
from zoo.data.encoded import Encoded, EncodedData
from zoo.data.image.digits import Digits
from zoo.data.in_memory import InMemoryData
from zoo.data.loader import make_generator
from zoo.metrics.codebook import code_perplexity, dead_codes, share_used
from zoo.models.abilities import SupportsExport, SupportsFirstStage, SupportsLikelihood
from zoo.models.ability import supports
from zoo.models.options import method_options
from zoo.nn.distributions.latents import ChannelRange, IndependentCodes
from zoo.training.train import train

TINY = zoo.DataSpec(Image(1, 2, 2, levels=2), name="tiny")
VQ = {"name": "vqvae", **FIRST_STAGE}
GPT = {"name": "language_model", "backbone": {"name": "transformer", **SIZES}}
PIXELS = {"name": "pixel_transformer", "backbone": {"name": "transformer", **SIZES}}
CNN = {"name": "pixelcnn", "channels": 8, "n_layers": 2, "embedding": 3}


def stages(first: dict, prior: dict, spec: zoo.DataSpec = SPECS["image"]) -> zoo.Model:
    torch.manual_seed(0)
    model = build("model", {"name": "two_stage", "first_stage": first, "second_stage": prior}, spec)
    one = model.first_stage
    if one.density is not None:
        one.density.fit(one.latents_to_fit(examples(spec, 64)))
    return model.eval()


# -- what first stages offer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vqvae", "vqvae2", "fsq_vae", "kl_autoencoder", "ae"])
def test_latents_lie_in_their_space_and_come_back(name: str) -> None:
    model = make(name, "image").eval()
    x = examples(model.spec, 64).x
    model.density.fit(model.latents_to_fit(Batch(x, torch.zeros(64))))
    z = model.to_latent(x)
    assert tuple(z.shape[1:]) == model.latent_space().shape
    if not isinstance(model.latent_space(), Codes):
        model.latent_space().validate(z)
    torch.testing.assert_close(model.from_latent(z), model.reconstruct(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model.from_latent(z.roll(1, 0)), model.reconstruct(x), atol=1e-3)


def test_the_range_gives_channels_equal_moments() -> None:
    """Channels on other scales have mean 1/2 and one deviation; training data fill [0, 1] without a clamp."""
    z = torch.randn(300, 3, 2, 2, dtype=torch.float64) * torch.tensor([0.01, 1, 50])[:, None, None] + 7
    found = ChannelRange(3).double()
    assert not found.fitted
    found.fit(z)
    unit = found.to_unit(z)
    mean, std = unit.mean((0, 2, 3)), unit.std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.full((3,), 0.5).double())
    torch.testing.assert_close(std, std[:1].expand(3))
    assert min(1 - unit.max(), unit.min()) < 1e-6, "one end is reached"
    torch.testing.assert_close(found.from_unit(unit), z)
    wrong = found.location + (unit - 0.5) / (2 * found.reach * found.scale)
    assert not torch.allclose(wrong, z), "the scale on the wrong side"
    drawn = found.draw(20_000, (1, 1), make_generator(0)).flatten(1)
    torch.testing.assert_close(drawn.std(0) / found.scale.flatten(), torch.ones(3).double(), rtol=0.03, atol=0)


def test_codes_are_drawn_with_the_frequencies_of_their_place() -> None:
    codes = torch.stack([torch.arange(1000) % 2, 5 + (torch.arange(1000) % 10 == 0)], 1)  # 1/2 each, and one in ten
    found = IndependentCodes(2)
    found.fit(codes)
    drawn = found.draw(20_000, make_generator(0))
    assert set(drawn[:, 0].tolist()) == {0, 1}
    assert (drawn[:, 1] == 6).float().mean().item() == pytest.approx(0.1, abs=4 * (0.09 / 20_000) ** 0.5)
    together = ((drawn[:, 0] == 1) & (drawn[:, 1] == 6)).float().mean().item()
    assert together == pytest.approx(0.05, abs=0.01), "independent; in the data it never happens"
    assert not ((codes[:, 0] == 1) & (codes[:, 1] == 6)).any()


def test_use_of_a_codebook_in_closed_form() -> None:
    counts = torch.tensor([4, 4, 4, 4, 0, 0, 0, 0])
    assert code_perplexity(counts) == pytest.approx(4)
    assert share_used(counts) == 0.5
    assert dead_codes(counts) == 4
    assert dead_codes(torch.stack([counts, torch.ones(8)])) == 2, "the mean of both codebooks"
    assert dead_codes(torch.ones(8)) == 0
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.1))
    assert code_perplexity(torch.tensor([8, 1, 1])) == pytest.approx(math.exp(entropy))
    assert code_perplexity(torch.stack([counts, torch.ones(8)])) == pytest.approx(6)
    model = make("vqvae", "image").eval()
    x = examples(model.spec, 20).x
    index = model.to_latent(x)
    assert torch.equal(model.code_counts(x)[0], torch.bincount(index.flatten(), minlength=256))


# -- likelihoods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "prior"), [("vqvae", GPT), ("vqvae", PIXELS), ("vqvae", CNN), ("vqvae2", PIXELS)])
def test_the_bound_by_enumeration(name: str, prior: dict) -> None:
    """Over all 16 images and all codes: sum_c P(c) p(x | c) is p(x), and the term of x's own codes is below it."""
    first = {"name": name, "likelihood": "bernoulli", **FIRST_STAGE, "quantizer": {"name": "fsq", "levels": [2, 2]}}
    model = stages(first, prior, TINY).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    shape = model.first_stage.latent_space().shape
    codes = torch.tensor(list(itertools.product(range(4), repeat=math.prod(shape)))).view(-1, *shape)
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2)
    batch = model.encoded(Encoded(codes, torch.zeros(len(codes), dtype=torch.long)))
    with torch.no_grad():
        log_prior = model.prior.likelihoods(batch.x, batch.y if model.begins else None)[0].value  # (256,)
        given = torch.stack([model.first_stage.latent_log_prob(x, code.expand(16, *shape)) for code in codes])
        exact = (log_prior[:, None] + given).logsumexp(0)  # (16,)
        (bound,) = model.likelihoods(x)
    total = log_prior.exp().sum().item()
    assert (total == pytest.approx(1)) if not model.begins else (0 < total < 1), "a text may have another token"
    assert exact.exp().sum().item() == pytest.approx(total)
    assert (bound.value <= exact + 1e-9).all()
    assert (bound.kind, bound.exact, bound.name) == ("discrete", False, "nll_bound")
    own = [int((codes == z).flatten(1).all(1).nonzero()) for z in model.first_stage.to_latent(x)]
    terms = (log_prior[:, None] + given)[own, range(16)]
    torch.testing.assert_close(bound.value, terms)
    assert not torch.allclose(bound.value, terms.roll(1, 0))


class LinearNetwork(torch.nn.Module):
    """q(z | x) = N(W x + c, std^2), and the mean A z + b of p(x | z): images (B, 1, 2, 2), latents (B, 2, 1, 1)."""

    grid = (1, 1)

    def __init__(self, A: Tensor, b: Tensor, W: Tensor, c: Tensor, std: Tensor) -> None:
        super().__init__()
        self.A, self.b, self.W, self.c = A, b, W, c
        self.raw = 6 * torch.atanh(std.log() / 6)  # before `soft_clamp`

    def encode(self, x: Tensor) -> Tensor:
        mean = x.flatten(1) @ self.W.T + self.c
        return torch.cat([mean, self.raw.expand_as(mean)], 1)[..., None, None]

    def decode(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.A.T + self.b).view(-1, 1, 2, 2)


FLOW = {"name": "flow", "transform": {"name": "coupling", "act_norm": False, "n_couplings": 2, "width": 4, "depth": 1}}


def linear_gaussian(shift: float = 0.0, widen: float = 1.0) -> tuple[zoo.Model, Distribution, float]:
    """Two stages of x = A z + b + s n; p(x); and KL(q(z | x) || p(z | x)) of a shifted and widened q."""
    s, prior_mean = 0.3, torch.tensor([0.3, -0.2], dtype=torch.float64)
    prior_std = torch.tensor([1.5, 0.7], dtype=torch.float64)
    A = torch.tensor([[1.0, 1], [1, -1], [0.5, 2], [0.5, -2]], dtype=torch.float64)  # its columns are orthogonal
    b = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    variance = 1 / (1 / prior_std**2 + A.square().sum(0) / s**2)  # of p(z | x)
    W = variance[:, None] * A.T / s**2
    c, std = variance * prior_mean / prior_std**2 - W @ b, variance.sqrt()
    first = {"name": "kl_autoencoder", "channels": 2, "network": FIRST_STAGE["network"]}
    first["likelihood"] = {"name": "gaussian", "variance": "fixed", "std": s}
    spec = zoo.DataSpec(Image(1, 2, 2), name="linear")
    model = build("model", {"name": "two_stage", "first_stage": first, "second_stage": FLOW}, spec).double()
    one = model.first_stage
    one.network, one.grid = LinearNetwork(A, b, W, c + shift * std, widen * std), (1, 1)
    model.prior = build("model", FLOW, zoo.DataSpec(Image(2, 1, 1, levels=0), name="latents")).double()
    one.density.location.copy_(prior_mean[:, None, None])
    one.density.scale.copy_(prior_std[:, None, None])
    one.density.reach.fill_(2.0)
    model.prior.standardize.location.fill_(0.5)  # an untrained flow is the identity:
    model.prior.standardize.scale.fill_(0.25)  # its z is N(prior_mean, prior_std^2)
    covariance = A @ torch.diag(prior_std**2) @ A.T + s**2 * torch.eye(4, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(b + A @ prior_mean, covariance)
    return model.eval(), exact, widen**2 + shift**2 - 1 - 2 * math.log(widen)  # the sum of two equal ones


@torch.no_grad()
def test_the_bound_of_continuous_latents_is_exact_for_the_exact_posterior() -> None:
    """With q(z | x) = p(z | x) every draw gives log p(x); with another q it is lower by the divergence, on average."""
    model, exact, _ = linear_gaussian()
    torch.manual_seed(0)
    x = exact.sample((5,)).view(5, 1, 2, 2)
    expected = exact.log_prob(x.flatten(1))
    for _ in range(2):
        (found,) = model.likelihoods(x)
        torch.testing.assert_close(found.value, expected, rtol=1e-9, atol=1e-9)
    assert (found.kind, found.exact, found.name) == ("continuous", False, "nll_bound")
    # By quadrature: the same density is the integral of p(x | z) p(z) of the two stages.
    e = torch.cartesian_prod(*[torch.linspace(-7, 7, 701, dtype=torch.float64)] * 2)
    density = model.first_stage.density
    z = (density.location.flatten() + e * density.scale.flatten())[..., None, None]
    log_pz = model.prior.log_prob(density.to_unit(z)) + density.log_abs_det(z)
    terms = model.first_stage.observation_log_prob(x[:1].expand(len(z), -1, -1, -1), z) + log_pz
    cell = (14 / 700) ** 2 * density.scale.prod()
    assert (terms.logsumexp(0) + cell.log()).item() == pytest.approx(expected[0].item(), abs=1e-6)

    wrong, _, kl = linear_gaussian(shift=0.5, widen=1.4)
    draws = torch.stack([wrong.likelihoods(x)[0].value for _ in range(2000)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - (expected - kl)).abs() < 4.5 * error).all()
    assert (draws.mean(0) < expected - 5 * error).all(), "the control: it is not exact"


@torch.no_grad()
def test_a_bound_on_another_scale_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the scale of the latents the prior's density is that of other units."""
    model, exact, _ = linear_gaussian()
    x = exact.sample((5,)).view(5, 1, 2, 2)
    monkeypatch.setattr(ChannelRange, "log_abs_det", lambda self, z: 0.0)
    (found,) = model.likelihoods(x)
    difference = found.value - exact.log_prob(x.flatten(1))
    torch.testing.assert_close(difference, torch.full((5,), math.log(4 * 1.5 * 4 * 0.7)).double())


@torch.no_grad()
def test_a_flow_as_prior_of_a_vae() -> None:
    """A flow that is still the identity has the VAE's own prior, and so its bound."""
    small = {"encoder": {"name": "mlp", "width": 8}, "decoder": {"name": "mlp", "width": 8}}
    model = stages({"name": "vae", "latent_dim": 4, **small}, FLOW)
    x, vae = examples(model.spec, 6).x, model.first_stage
    torch.manual_seed(0)
    (found,) = model.likelihoods(x)
    torch.manual_seed(0)
    log_px, log_ratio, _ = vae.sample_posterior_terms(x, None, vae.posterior_params(x), 1)
    torch.testing.assert_close(found.value, (log_px - log_ratio)[0])
    assert not torch.allclose(model.likelihoods(x)[0].value, found.value, rtol=1e-5), "another draw"
    assert (found.kind, found.name) == (vae.likelihood_kind, "nll_bound")


def test_latents_are_continuous_for_a_flow_and_a_diffusion_model() -> None:
    """A change of a latent far below 1 / 255 changes its density; on a grid of levels it would not."""
    flow = stages(KL, FLOW).prior
    rounded = build("model", FLOW, zoo.DataSpec(Image(2, 4, 4), name="pixels"))
    z = torch.rand(3, 2, 4, 4)
    assert not torch.equal(flow.prepare(z + 1e-4), flow.prepare(z))
    assert (flow.log_prob(z + 1e-4) != flow.log_prob(z)).all()
    steps = rounded.prepare(z + 1e-4) - rounded.prepare(z)
    assert (steps == 0).float().mean() > 0.9, "the control: 256 levels"
    drawn = flow.sample(4, seed=0)
    assert not torch.allclose((drawn * 255).round() / 255, drawn, atol=1e-4)
    assert supports(stages(KL, FLOW), SupportsLikelihood)
    diffusion = stages(KL, PAIRS["latent_diffusion"]["second_stage"])
    (found,) = diffusion.likelihoods(*examples(diffusion.spec, 2))
    assert (found.kind, found.exact, found.name) == ("continuous", False, "nll_bound_ode")
    assert found.value.isfinite().all()
    for prior in (CNN, PIXELS, {"name": "masked_diffusion"}, {"name": "rbm"}):
        with pytest.raises(ZooError, match=r"continuous, without levels\. Choose a model of densities"):
            stages(KL, prior)


def test_likelihoods_are_absent_where_one_stage_has_none() -> None:
    assert not supports(stages({**KL, "likelihood": "bernoulli"}, FLOW), SupportsLikelihood)
    plain = {"encoder": {"name": "mlp", "width": 8}, "decoder": {"name": "mlp", "width": 8}}
    assert not supports(stages({"name": "ae", "latent_dim": 4, **plain}, FLOW), SupportsLikelihood)
    grey = stages({**VQ, "likelihood": "bernoulli"}, PIXELS)
    assert not supports(grey, SupportsLikelihood), "a Bernoulli of grey values is not a likelihood"
    assert supports(stages(VQ, PIXELS), SupportsLikelihood)


# -- priors ------------------------------------------------------------------------------------------------------------


def test_a_language_model_reads_codes_after_a_token_that_begins() -> None:
    model = stages(VQ, GPT)
    x, y = examples(model.spec, 5)
    batch, codes = model.encoded(Batch(x, y)), model.first_stage.to_latent(x).flatten(1)
    assert model.latents.x == Tokens(16, 17)
    assert torch.equal(batch.y, codes)
    assert torch.equal(batch.x[:, 1:], codes[:, :-1])
    assert set(batch.x[:, 0].tolist()) == {16}


def test_only_codes_are_decoded() -> None:
    """Samples are those of the prior given that no token ends the text: by rejection, rows apart."""
    model, seen = stages(VQ, GPT), []
    model.prior.sample = lambda n, generator, **_: torch.randint(17, (n, 16), generator=generator)
    plain = model.prior.sample(40, make_generator(0))
    good = (plain < 16).all(1)
    assert 5 < good.sum() < 35
    model.decoded = lambda z: seen.append(z) or torch.zeros(len(z))
    model.sample(40, generator=make_generator(0))
    assert (seen[0] < 16).all()
    assert torch.equal(seen[0][good], plain[good])
    assert seen[0][~good].unique(dim=0).shape[0] == (~good).sum(), "drawn apart"
    model.prior.sample = lambda n, **_: torch.full((n, 16), 16)
    with pytest.raises(ZooError, match="not codes"):
        model.sample(3)


def test_samples_are_decoded_draws_of_the_prior() -> None:
    for name in PAIRS:
        model = make(name, "image").eval()
        z = model.prior.sample(4, generator=make_generator(3), **({"max_new_tokens": None} if model.begins else {}))
        if model.begins and (z == 16).any():
            continue
        shape = model.first_stage.latent_space().shape
        assert torch.equal(
            model.sample(4, generator=make_generator(3)), model.first_stage.from_latent(z.view(4, *shape))
        )
        assert torch.equal(model.sample(4, seed=3), model.sample(4, generator=make_generator(3)))


def test_options_labels_and_abilities_are_those_of_the_prior() -> None:
    model = make("latent_diffusion", "image").eval()
    names = {option.name for option in method_options(model.sample)}
    assert names == {option.name for option in method_options(model.prior.sample)}
    assert {"steps", "guidance", "sampler"} <= names
    assert model.conditional
    for weight in model.prior.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # or nothing moves the noise
    y = torch.arange(4)
    assert torch.equal(model.sample(4, condition=y, seed=1, steps=3), model.sample(4, condition=y, seed=1, steps=3))
    assert not torch.equal(model.sample(4, condition=y, seed=1, steps=3), model.sample(4, condition=y, seed=1, steps=2))
    assert supports(model, SupportsExport)
    gpt = make("codes_gpt", "image")
    assert not supports(gpt, SupportsExport)
    assert not gpt.conditional


def test_a_vector_latent_has_a_prior_too() -> None:
    small = {"encoder": {"name": "mlp", "width": 8}, "decoder": {"name": "mlp", "width": 8}}
    prior = {"name": "diffusion", "denoiser": {"name": "mlp", "width": 8, "depth": 1}}
    model = stages({"name": "ae", "latent_dim": 3, **small}, prior)
    assert model.latents.x == Vector(3)
    assert model.sample(5, seed=0, steps=2).shape == (5, 1, 8, 8)
    assert model.loss(examples(model.spec, 6))["loss"].isfinite()


@pytest.mark.parametrize(
    ("first", "prior", "error"),
    [
        ({"name": "gan"}, PIXELS, "model.first_stage=gan: has no latent space. Choose a run of .*vqvae"),
        ({"name": "cvae"}, PIXELS, "model.first_stage=(cvae|vae): has no latent space"),
        (
            VQ,
            {"name": "flow"},
            "model.second_stage=flow: learns .* but the latents of vqvae are codes 4x4. Choose a model",
        ),
        (
            KL,
            GPT,
            "model.second_stage=language_model: learns tokens, but the latents of kl_autoencoder are image 2x4x4",
        ),
        (KL, {"name": "gan"}, "model.second_stage=gan: does not train by the gradient of one loss"),
        (KL, {"name": "gmm"}, "model.second_stage=gmm: does not train by the gradient"),
        (KL, {"name": "ae"}, "model.second_stage=ae: does not train by the gradient"),
        (VQ, {"name": "nope"}, "model.second_stage: unknown model 'nope'"),
    ],
)
def test_what_does_not_fit_is_refused(first: dict, prior: dict, error: str) -> None:
    if first["name"] == "cvae":
        first = {"name": "vae", "conditional": True}
    with pytest.raises(ConfigError, match=error):
        stages(first, prior)


# -- data --------------------------------------------------------------------------------------------------------------


class Flipped(Digits):
    def fetch(self, split, indices, generator, *, train):
        x, y = super().fetch(split, indices, generator, train=train)
        return (x.flip(-1) if train and torch.rand((), generator=generator) < 0.5 else x), y


def test_data_are_encoded_once_where_they_are_not_augmented() -> None:
    calls: list[int] = []

    def encode(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.flatten(1).sum(1, keepdim=True)

    for kind, stored in ((Digits, True), (Flipped, False)):
        calls.clear()
        plain, data = kind(batch_size=64), EncodedData(kind(batch_size=64), encode)
        plain.setup()
        data.setup()
        for _ in range(2):
            for batch, like in zip(data.train_dataloader(), plain.train_dataloader(), strict=True):
                assert isinstance(batch, Encoded) is stored
                assert torch.equal(batch.y, like.y), "the order is the same"
                torch.testing.assert_close(batch.x, encode(like.x) if stored else like.x)
            data.val_dataloader()
        held_out = [len(data.val[0])]
        want = [500, 500, 437, *held_out] if stored else held_out
        assert [n for n in calls if n != 64] == want


def test_the_prior_is_fitted_to_latents_and_not_to_data() -> None:
    model = make("latent_diffusion", "image")
    data = Digits(batch_size=16)
    data.setup()
    model.fit_to_data(data)
    z = model.first_stage.to_latent(data.train[0])
    assert model.prior.standardize.location.item() == pytest.approx(0.5, abs=0.02)
    assert model.prior.standardize.scale.item() == pytest.approx(z.std(correction=0).item(), rel=1e-4)
    assert model.prior.class_shares == model.class_shares
    assert data.train[0].mean().item() != pytest.approx(0.5, abs=0.02), "the mean of the data is another one"


def test_the_first_stage_is_frozen_and_stays_in_evaluation_mode() -> None:
    model = make("codes_gpt", "image").train()
    before = {k: v.clone() for k, v in model.first_stage.state_dict().items()}
    model.loss(examples(model.spec, 8))["loss"].backward()
    assert not model.first_stage.training
    assert model.prior.training
    assert not [p for p in model.first_stage.parameters() if p.requires_grad]
    assert all(torch.equal(before[k], v) for k, v in model.first_stage.state_dict().items()), "no codes moved either"


# -- the command line --------------------------------------------------------------------------------------------------

SMOKE = ["trainer=smoke", "data.batch_size=16", "trainer.val_check_interval=1"]
NETWORK = ["model.network.width=8"]
SMALL = ["model.backbone.d_model=16", "model.backbone.n_layers=1"]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stages") / "first"
    train(compose(*SMOKE, *NETWORK, "trainer.max_steps=2", "model=vqvae", "data=digits"), str(folder))
    return folder


def test_a_run_of_two_stages(first: Path, cli, tmp_path: Path) -> None:
    """One command trains any prior; one checkpoint samples, is evaluated and resumed, without the first run."""
    same = ["model=gpt", *SMALL, "model.optimizer.schedule=constant", f"first_stage={first}", *SMOKE]
    for name, batches in (("straight", 2), ("begun", 1)):
        result = cli(*same, f"trainer.max_steps={batches}", f"hydra.run.dir={name}")
        assert result.code == 0, result.err
        assert "vqvae of digits" in result.out
    first.rename(first.with_name("moved"))
    try:
        result = cli("resume=begun", "trainer.max_steps=2")
        assert result.code == 0, result.err
        assert unequal(tmp_path / "straight/last.ckpt", tmp_path / "begun/last.ckpt") == []
        model = zoo.load("begun")
    finally:
        first.with_name("moved").rename(first)
    assert model.spec.name == "digits", "the data are those of the first stage"
    trained = zoo.load(first)
    for name, weight in trained.state_dict().items():
        assert torch.equal(weight, model.first_stage.state_dict()[name])
    result = cli("sample", "begun", "-n", "4", "temperature=0.5", entry=main)
    assert result.code == 0, result.err
    result = cli("evaluate", "begun", "--split", "val", entry=main)
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "begun/metrics.json").read_text())["best.ckpt"]["metrics"]
    assert {"nll_bound_density@180_val", "fd_digits@1437_val", "reconstruction_mse@180_val"} <= scores.keys()
    refused = cli("model=diffusion", f"first_stage={first}", *SMOKE, "trainer.max_steps=1")
    assert (
        "model.second_stage=diffusion: learns image, vector, series or video, but the latents of vqvae are codes 4x4."
        in refused.err
    )


def test_errors_of_the_command(first: Path, cli) -> None:
    for arguments, error in (
        (["model=gpt", "first_stage=nowhere"], "there is no run or checkpoint at nowhere"),
        (["model=gpt", f"first_stage={first}", f"init_from={first}"], f"not together with first_stage={first}"),
        (["model=gpt", "first_stage="], "an empty path"),
    ):
        result = cli(*arguments, *SMOKE)
        assert result.code != 0
        assert error in result.err
        assert "Traceback" not in result.err


def test_from_python(first: Path) -> None:
    options = {"max_steps": 1, "progress": False, "accelerator": "cpu", "first_stage": first}
    model = zoo.fit("masked_diffusion", "digits", **options)
    assert supports(model.first_stage, SupportsFirstStage)
    assert model.latents.x == Codes((4, 4), 256)
    assert isinstance(model.latents.condition, Label)
    with pytest.raises(ConfigError, match="the model is built already"):
        zoo.fit(model, InMemoryData(torch.rand(40, 1, 8, 8)), **options)


def test_use_of_the_codebook_is_logged_and_evaluated(first: Path, cli) -> None:
    header = (first / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/code_perplexity", "val/codes_used", "val/dead_codes", "val/quantization"} <= set(header)
    result = cli("evaluate", str(first), "--only", "codebook", "--split", "val", entry=main)
    assert result.code == 0, result.err
    scores = json.loads((first / "metrics.json").read_text())["best.ckpt"]["metrics"]
    assert {
        "code_perplexity_of_256@1437_train",
        "codes_used@1437_train",
        "dead_codes_of_256@1437_train",
    } <= scores.keys()


def test_the_counts_of_a_validation_are_those_of_the_whole_split() -> None:
    model, data = make("vqvae", "image").eval(), Digits(batch_size=32)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    (logged,) = trainer.validate(model, datamodule=data, verbose=False)
    counts = model.eval().code_counts(data.val[0])
    assert logged["val/code_perplexity"] == pytest.approx(code_perplexity(counts), rel=1e-5)
    assert logged["val/codes_used"] == pytest.approx(share_used(counts), rel=1e-5)
    some = model.code_counts(data.val[0][:32])
    assert code_perplexity(some) != pytest.approx(code_perplexity(counts), rel=1e-3), "one batch is not the split"


def test_a_copy_is_independent() -> None:
    model = make("latent_diffusion", "image").eval()
    other = copy.deepcopy(model)
    for weight in other.prior.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    assert other.sample.func.__self__ is other
    assert not torch.equal(model.sample(3, seed=0), other.sample(3, seed=0))
