"""The model `diffusion`: exact on data whose answer is known, and what it promises beyond the contract tests."""

import math

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from tests.nn.diffusion.gaussian import MEAN, VARIANCE, gaussian_denoiser, gaussian_flow, log_gaussian
from zoo.config.compose import compose, to_plain
from zoo.core.errors import ConfigError, DataError
from zoo.core.registry import build
from zoo.core.spaces import Image, Label, Vector
from zoo.models.abilities import SupportsExport
from zoo.models.ability import supports
from zoo.models.diffusion.diffusion import Diffusion
from zoo.models.diffusion.flow_map import FlowMap
from zoo.nn.diffusion.target import TARGETS, coefficients

SMALL = {"denoiser": {"name": "mlp", "width": 16, "depth": 1}}
POINTS = zoo.DataSpec(Vector(2), name="gaussian")


class Exact(Diffusion):
    """The network's output is that of the exact denoiser of a Gaussian."""

    def predict(self, z, at, y):
        x, e = gaussian_denoiser(self.path)(z, at.t.flatten())
        p, q = coefficients(self.target, at)
        return p * x + q * e


def exact(target: str = "velocity", path: str = "linear", **settings) -> Exact:
    return Exact(POINTS, path=path, target=target, **SMALL, **settings).double().eval()


WITHOUT_SIGNAL = {(t, p) for t in ("eps", "score") for p in ("linear", "trigonometric")}  # refused, see below
DEFINED = [
    (t, p)
    for t in TARGETS
    for p in ("linear", "trigonometric", "vp_cosine", "vp_linear")
    if (t, p) not in WITHOUT_SIGNAL
]


def randomise(model: Diffusion) -> None:
    """Weights that are not zero, so that labels and noise levels have an influence."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize(("target", "path"), DEFINED)
def test_the_exact_denoiser_encodes_decodes_and_scores_exactly(target: str, path: str) -> None:
    model = exact(target, path, sampler={"name": "heun", "steps": 100})
    x = MEAN + VARIANCE.sqrt() * torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = model.encode(x)
    torch.testing.assert_close(model.decode(z), x, rtol=0, atol=0.02)
    expected = gaussian_flow(model.path, x, max(model.path.first, 1e-3), model.path.last)
    torch.testing.assert_close(z, expected, rtol=0, atol=0.05)
    (found,) = model.likelihoods(x)
    assert (found.kind, found.name) == ("continuous", "nll_ode")
    torch.testing.assert_close(found.value, log_gaussian(x), rtol=0, atol=0.06)


def test_the_loss_is_least_for_the_exact_denoiser() -> None:
    """And its value is the one of theory: E |v - E[v | z]|^2 of a Gaussian, integrated over uniform times."""
    model = exact()
    torch.manual_seed(0)
    x = torch.tensor([0.3, -0.5]) + torch.tensor([0.2, 1.7]) * torch.randn(20_000, 2, dtype=torch.float64)
    found = model.squared_errors(x, None)[0].mean().item()
    t = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None]
    variance = torch.tensor([0.2, 1.7], dtype=torch.float64).square()
    # v = e - x and z = (1 - t) x + t e: Var v - Cov(v, z)^2 / Var z
    left = variance + 1 - (t - (1 - t) * variance) ** 2 / ((1 - t) ** 2 * variance + t**2)
    assert found == pytest.approx(torch.trapezoid(left.mean(1), t[:, 0]).item(), rel=0.02)

    class Off(Exact):
        def predict(self, z, at, y):
            return super().predict(z, at, y) + 0.3

    off = Off(POINTS, **SMALL).double().eval()
    torch.manual_seed(0)
    assert off.squared_errors(x, None)[0].mean().item() == pytest.approx(found + 0.09, abs=0.02)


def test_training_finds_the_score_of_a_gaussian() -> None:
    """After a short training the samples have the data's mean and deviation."""
    torch.manual_seed(0)
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])
    model = Diffusion(POINTS, denoiser={"name": "mlp", "width": 64, "depth": 2})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        x = mean + std * torch.randn(256, 2)
        model.loss(zoo.data.batch.Batch.of(x))["loss"].backward()
        optimizer.step()
    x = model.sample(2000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.15)
    torch.testing.assert_close(x.std(0), std, rtol=0.15, atol=0)


@pytest.mark.parametrize(("target", "path"), [(t, "edm") for t in TARGETS] + [("levels", "linear"), ("x", "linear")])
def test_every_target_trains_and_samples(target: str, path: str) -> None:
    """Finite, also at the ends of the path where some targets are undefined."""
    model = Diffusion(SPECS["image"], target=target, path=path, sampler={"name": "heun", "steps": 3}, **SMALL)
    batch = examples(SPECS["image"], 6)
    assert model.loss(batch)["loss"].isfinite()
    x = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert x.isfinite().all()
    assert model.bound(batch.x, batch.y).isfinite().all()


def test_targets_that_are_undefined_without_signal_are_refused_on_paths_that_end_there() -> None:
    for target, path in WITHOUT_SIGNAL:
        with pytest.raises(ConfigError, match=rf"{target}: undefined where the path"):
            Diffusion(SPECS["image"], target=target, path=path, **SMALL)


def test_levels_are_probabilities_of_the_datas_levels() -> None:
    """With a network that outputs zeros, the estimate is the posterior mean under equal levels, by Bayes' rule."""
    model = Diffusion(SPECS["image"], target="levels", **SMALL).eval()
    z, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.6])
    x, _ = model.estimate(z, t, None)
    levels = model.level_values()
    a, s = (1 - t).view(2, 1, 1, 1, 1), t.view(2, 1, 1, 1, 1)
    weight = torch.distributions.Normal(a * levels, s).log_prob(z[..., None]).softmax(-1)
    torch.testing.assert_close(x, (weight * levels).sum(-1), rtol=1e-4, atol=1e-4)
    assert Diffusion(zoo.DataSpec(Image(3, 8, 8, levels=256)), target="levels", **SMALL).target == "v"


def test_labels_are_dropped_for_guidance_in_training_only() -> None:
    model = Diffusion(SPECS["image"], label_dropout=0.25, **SMALL)
    y = torch.arange(8)
    assert model.train().dropped(y).tolist() == [10, 1, 2, 3, 10, 5, 6, 7]
    assert model.eval().dropped(y).tolist() == list(range(8))
    unlabelled = Diffusion(zoo.DataSpec(Image(1, 8, 8)), **SMALL)
    assert not unlabelled.conditional
    assert unlabelled.dropped(y) is None
    with pytest.raises(DataError):
        unlabelled.sample(2, condition=torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="guidance=2"):
        unlabelled.sample(2, guidance=2.0)


def test_guidance_is_affine_in_the_two_predictions() -> None:
    model = Diffusion(SPECS["image"], **SMALL).eval()
    randomise(model)
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    with torch.no_grad():
        given, without = model.estimate(z, 0.5, y)[0], model.estimate(z, 0.5, None)[0]
        guided = model.denoise_fn(y, 3.0)(z, 0.5)[0]
    assert not torch.allclose(given, without)
    torch.testing.assert_close(guided, without + 3 * (given - without))


def test_options_of_sampling_are_used() -> None:
    model = Diffusion(SPECS["image"], **SMALL)
    randomise(model)
    draw = lambda **options: model.sample(2, generator=torch.Generator().manual_seed(0), **options)  # noqa: E731
    first = draw(steps=2)
    assert not torch.equal(first, draw(steps=5))
    assert not torch.equal(first, draw(steps=2, sampler="euler"))
    assert not torch.equal(first, draw(steps=2, guidance=4.0))
    assert torch.equal(draw(steps=2, sampler="ddpm"), draw(steps=2, sampler="ddpm"))
    with pytest.raises(ConfigError, match="did you mean 'heun'"):
        draw(sampler="heunn")
    assert model.training, "sampling leaves the mode as it was"


def test_guidance_acts_within_its_interval_only() -> None:
    """As an option of samples and as a setting: inside, the numbers of guidance; outside, those of none."""
    model = Diffusion(SPECS["image"], sampler="ddim", **SMALL).eval()
    limited = Diffusion(SPECS["image"], sampler="ddim", guidance=3.0, guidance_interval=[-1.0, 2.0], **SMALL).eval()
    randomise(model)
    limited.load_state_dict(model.state_dict())
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    with torch.no_grad():
        for t in (0.05, 0.4, 0.5, 0.9):  # on the linear path the log-SNR is 2 log((1 - t) / t)
            inside = -1 <= model.path.number(t).log_snr <= 2
            weight = 3.0 if inside else 1.0
            expected = model.denoise_fn(y, weight)(z, t)[0]
            other = model.denoise_fn(y, 4.0 - weight)(z, t)[0]
            for found in (model.denoise_fn(y, 3.0, [-1.0, 2.0]), limited.denoise_fn(y)):
                assert torch.equal(found(z, t)[0], expected)
                assert not torch.allclose(found(z, t)[0], other), "the control"

    def draw(chosen, **options):
        return chosen.sample(3, condition=y, generator=torch.Generator().manual_seed(0), steps=4, **options)

    some = draw(model, guidance=3.0, guidance_interval=[-1.0, 2.0])
    assert torch.equal(some, draw(limited))
    assert torch.equal(draw(model), draw(model, guidance=3.0, guidance_interval=[-90.0, -80.0]))
    assert torch.equal(draw(model, guidance=3.0), draw(model, guidance=3.0, guidance_interval=[-math.inf, math.inf]))
    for whole in (draw(model), draw(model, guidance=3.0)):
        assert not torch.allclose(some, whole)
    wrong = model.denoising(3, 4, condition=y, generator=torch.Generator().manual_seed(0), steps=4, guidance=3.0)
    right = limited.denoising(3, 4, condition=y, generator=torch.Generator().manual_seed(0), steps=4)
    torch.testing.assert_close(right[:, -1], some)
    assert not torch.allclose(wrong[:, -1], some)
    for interval in ([1.0], [2.0, -1.0], [1.0, 2.0, 3.0], ["a", "b"]):
        with pytest.raises(ConfigError, match="two log-SNRs in ascending order"):
            draw(model, guidance=2.0, guidance_interval=interval)
        with pytest.raises(ConfigError, match="two log-SNRs in ascending order"):
            Diffusion(SPECS["image"], guidance_interval=interval, **SMALL)


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "ddpm", "steps": 5},
        {"name": "ddim", "steps": 4, "eta": 0.5},
        {"name": "dpmpp_2m_sde", "steps": 5, "grid": "log_snr"},
        {"name": "flow_map", "steps": 3, "renoise": True},
    ],
    ids=lambda s: s["name"],
)
@torch.no_grad()
def test_exports_of_stochastic_samplers_take_the_noise_of_all_steps(sampler: dict) -> None:
    """With the same noise an export gives the samples of `sample`; every step's noise counts."""
    kind = FlowMap if sampler["name"] == "flow_map" else Diffusion
    model = kind(SPECS["image"], sampler=sampler, **SMALL).eval()
    randomise(model)
    core, n = model.export_module(), 3
    assert [i.name for i in core.inputs] == ["noise", "label", "steps"]
    assert core.inputs[-1].size == (sampler["steps"] - 1, 1, 8, 8)
    for seed in (0, 1):
        z, y, steps = core.draw(n, torch.Generator().manual_seed(seed))
        drawn = model.sample(n, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(core(z, y, steps), drawn)
        assert torch.equal(core(*core.draw(2, torch.Generator().manual_seed(seed))), drawn[:2]), "rows, whatever n is"
        for k in range(steps.shape[1]):
            other = steps.clone()
            other[:, k] = 0
            assert not torch.allclose(core(z, y, other), drawn, atol=1e-3), k
    once = kind(SPECS["image"], sampler={**sampler, "steps": 1}, **SMALL).export_module()
    assert [i.name for i in once.inputs] == ["noise", "label"], "the last step adds none"
    assert not supports(Diffusion(SPECS["image"], sampler="adaptive", **SMALL), SupportsExport)


SCHEDULES = [  # Kingma & Gao 2023, table 1: weights of the log-SNR that practitioners' losses imply
    ({"path": "linear", "target": "velocity"}, lambda log_snr: -log_snr / 2),
    ({"path": "vp_linear", "target": "eps", "times": "uniform", "weighting": "elbo"}, torch.zeros_like),
    ({"path": "trigonometric", "target": "v"}, lambda log_snr: -log_snr / 2),
]


@pytest.mark.parametrize(("settings", "expected"), SCHEDULES)
def test_the_drawn_schedule_is_that_of_theory(settings: dict, expected) -> None:
    schedule, density, weight = Diffusion(POINTS, **settings, **SMALL).curves()
    assert torch.trapezoid(density.y, density.x).item() == pytest.approx(1, abs=0.01)
    wanted = expected(weight.x)
    torch.testing.assert_close(weight.y, wanted - wanted.max(), rtol=1e-6, atol=1e-6)
    assert (schedule.y.diff() <= 0).all()
    assert schedule.marks[0] == schedule.x[-1]
    other = Diffusion(POINTS, **settings | {"times": "logit_normal", "weighting": "from_target"}, **SMALL).curves()[2]
    assert not torch.allclose(other.y, weight.y, atol=0.1), "negative control: other times have another weight"


def test_samples_by_steps_begin_with_one_estimate() -> None:
    """One step is the estimate of x from pure noise; the rows have the same noise, and end with other samples."""
    model = Diffusion(SPECS["image"], **SMALL)
    randomise(model)
    shown = {visual.name: visual for visual in model.visuals(examples(SPECS["image"], 2))}["samples_by_steps"]
    rows = shown.tensor.unflatten(0, (-1, 8))
    noise, y = model.prior_noise(8, torch.Generator().manual_seed(50_000_000)), torch.arange(8)
    with torch.no_grad():
        torch.testing.assert_close(rows[0], model.eval().to_data(model.estimate(noise, 1.0, y)[0]))
    assert len(rows) == 5
    assert not torch.allclose(rows[0], rows[-1], atol=0.01)
    adaptive = Diffusion(SPECS["image"], sampler="adaptive", **SMALL)
    assert [v.name for v in adaptive.visuals(examples(SPECS["image"], 2))] == ["denoising"]


def test_images_are_standardised_by_one_mean_and_deviation() -> None:
    model = Diffusion(SPECS["image"], **SMALL)
    x = examples(SPECS["image"], 200).x
    model.standardize.fit(x)
    z = model.standardize(x)
    assert z.mean().item() == pytest.approx(0, abs=1e-5)
    assert z.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(model.to_data(z), x)


RECIPES = [name for name in zoo.list_models() if zoo.model_info(name).registered == "diffusion"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_describe_what_the_papers_do(recipe: str) -> None:
    """Every recipe builds on unlabelled colour pictures of odd size too."""
    spec = zoo.DataSpec(Image(3, 9, 12), name="odd")
    settings = {k: v for k, v in to_plain(compose(f"model={recipe}").model).items() if k != "training"}
    model = build("model", settings, spec)
    assert model.loss(zoo.data.batch.Batch.of(torch.rand(4, 3, 9, 12)))["loss"].isfinite()


def test_the_bound_of_images_is_a_mass() -> None:
    """For one binary pixel, the bound of both values sums to at most one."""
    spec = zoo.DataSpec(Image(1, 1, 1, levels=2), Label(1), name="coin")
    model = Diffusion(spec, target="levels", conditional=False, **SMALL).eval()
    x = torch.tensor([0.0, 1.0]).repeat_interleave(3000).view(-1, 1, 1, 1)
    torch.manual_seed(0)
    bound = model.bound(x, draws=8).view(2, -1).mean(1)
    assert bound.exp().sum().item() <= 1.05
    assert bound.tolist() == pytest.approx([math.log(0.5)] * 2, abs=0.05), "equal levels are exact for zero output"


@pytest.mark.parametrize("sampler", ["heun", "ddim", "ddpm", "dpmpp_2m", "unipc"])
def test_the_last_estimate_of_a_sample_is_the_sample(sampler):
    torch.manual_seed(0)
    model = zoo.create_model("diffusion", data=zoo.DataSpec(Vector(2)), denoiser={"name": "mlp", "width": 8}).eval()
    for p in model.parameters():  # the last layer is zero at initialisation
        torch.nn.init.normal_(p, std=0.3)
    found = model.denoising(3, 4, steps=6, sampler=sampler, seed=1)
    assert found.shape == (3, 4, 2)
    assert torch.allclose(found[:, -1], model.sample(3, steps=6, sampler=sampler, seed=1), atol=1e-5)
    assert not torch.allclose(found[:, 0], found[:, -1], atol=1e-3)
    assert model.denoising(3, 9, steps=2, sampler=sampler, seed=1).shape == (3, 9, 2), "steps are repeated"


def test_samplers_of_discrete_data_are_refused():
    with pytest.raises(ConfigError, match=r"sampler=confidence: it samples other data\. Choose adaptive, ddim"):
        zoo.create_model("diffusion", data=zoo.DataSpec(Vector(2))).sample(1, sampler="confidence")
