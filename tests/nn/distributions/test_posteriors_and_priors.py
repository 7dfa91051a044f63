"""Posteriors and priors: densities integrate to one, draws follow them, and importance weights average to p(x)."""

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.models.variational.vae import VAE
from zoo.nn.distributions.normal import log_normal
from zoo.nn.distributions.posteriors import IAFPosterior
from zoo.nn.distributions.von_mises_fisher import log_sphere_area

POINTS = DataSpec(Vector(3), name="points")
SMALL = {"encoder": {"name": "mlp", "width": 8, "depth": 1}, "decoder": {"name": "mlp", "width": 8, "depth": 1}}
IAF = {"name": "iaf", "width": 8, "context": 4}
FLOW = {"name": "flow", "flow": {"name": "coupling", "n_couplings": 2, "width": 8}}
FEW = {"n_components": 3}
PAIRS = [
    ("standard", "gaussian"),
    ("standard", IAF),
    ({"name": "mixture", **FEW}, "gaussian"),
    ({"name": "mixture", **FEW}, IAF),
    ({"name": "vamp", **FEW}, "gaussian"),
    ({"name": "vamp", **FEW}, IAF),
    (FLOW, "gaussian"),
    (FLOW, IAF),
    ("uniform_sphere", "vmf"),
]


def model_of(prior, posterior, **options) -> VAE:
    """Float64, weights away from their start, two latents and a fixed noise of one."""
    torch.manual_seed(3)
    likelihood = {"name": "gaussian", "variance": "fixed", "std": 1.0}
    settings = {"prior": prior, "posterior": posterior, "feature_dim": 8, "likelihood": likelihood, **SMALL, **options}
    model = VAE(POINTS, latent_dim=2, **settings).double()
    with torch.no_grad():
        for module in (model.prior, model.posterior_family, model.head, model.decoder):
            for p in module.parameters():
                p.add_((0.15 if module is model.posterior_family else 0.25) * torch.randn_like(p))
        if model.prior.support == "real":
            model.head.bias[2:4] += 0.4  # q is wider than p(z | x), so that importance weights are bounded
    return model.eval()


def grid(model: VAE) -> tuple[Tensor, float]:
    """Points that cover the support, and the area of each."""
    if model.prior.support == "sphere":
        angle = torch.arange(2000, dtype=torch.float64) * (2 * math.pi / 2000)
        return torch.stack([angle.cos(), angle.sin()], 1), 2 * math.pi / 2000
    side = torch.linspace(-18, 18, 301, dtype=torch.float64)
    return torch.cartesian_prod(side, side), (36 / 300) ** 2


@pytest.mark.parametrize(("prior", "posterior"), PAIRS, ids=str)
@torch.no_grad()
def test_importance_weights_average_to_the_integral(prior, posterior) -> None:
    """E_q p(x, z) / q(z | x) = p(x), which quadrature over z gives; a weight with another q does not."""
    model, k = model_of(prior, posterior), 40_000
    z, area = grid(model)
    log_pz = model.log_prior(z)
    assert float(log_pz.exp().sum() * area) == pytest.approx(1, abs=1e-4)
    params = model.posterior_params(torch.randn(2, 3, dtype=torch.float64))
    density = model.posterior_family.log_prob(z, params[:1])
    assert float(density.exp().sum() * area) == pytest.approx(1, abs=1e-4)

    x = torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64)
    log_px_z = model.likelihood.log_prob(model.params(z), x.expand(len(z), -1))
    exact = (log_px_z + log_pz).logsumexp(0) + math.log(area)
    params = model.posterior_params(x)
    log_px, log_ratio, drawn = model.sample_posterior_terms(x, None, params, k)
    other = model.posterior_family.log_prob(drawn, params + 0.4) - model.log_prior(drawn)
    own = model.posterior_family.log_prob(drawn, params) - model.log_prior(drawn)
    torch.testing.assert_close(log_ratio, own)  # the density of a draw is that at a point
    for ratio, right in ((other, False), (log_ratio, True)):
        weights = (log_px - ratio - exact).exp()
        error = float(weights.std()) / math.sqrt(k)
        assert (abs(float(weights.mean()) - 1) < 4 * error) == right, (weights.mean(), error)
        assert error < 0.05
    assert float(model.iw_bound(x, 2000)) == pytest.approx(float(exact), abs=5 * error * math.sqrt(k / 2000))


@pytest.mark.parametrize(("prior", "posterior"), PAIRS, ids=str)
@torch.no_grad()
def test_draws_of_the_prior_follow_its_density(prior, posterior) -> None:
    model, n = model_of(prior, posterior), 20_000
    z, area = grid(model)
    weights = model.log_prior(z).exp() * area
    drawn = model.sample_prior(n, torch.Generator().manual_seed(0))

    def moments(points: Tensor) -> Tensor:
        a, b = points.unbind(1)
        return torch.stack([a, b, a * a, a * b, b * b, (2 * a).cos(), (2 * b).sin()], 1)

    exact, found = weights @ moments(z), moments(drawn)
    error = found.std(0) / math.sqrt(n)
    assert ((found.mean(0) - exact).abs() < 4.5 * error + 1e-4).all()
    assert not ((moments(drawn + 0.1).mean(0) - exact).abs() < 4.5 * error + 1e-4).all()  # negative control
    for start in (drawn[:1, None], drawn[None, :1]):
        path = model.prior.path(start, drawn[None, 1:2], torch.linspace(0, 1, 5)[:, None].double(), drawn=True)
        torch.testing.assert_close(path[0, [0, -1]], drawn[:2])
    if model.prior.support == "sphere":
        torch.testing.assert_close(path.norm(dim=-1), torch.ones(1, 5, dtype=torch.float64))


def test_log_determinant_of_an_iaf_posterior_is_that_of_its_jacobian() -> None:
    torch.manual_seed(0)
    family = IAFPosterior(4, n_layers=3, width=12, context=5).double()
    for p in family.parameters():
        nn.init.normal_(p, std=0.4)
    context, start = torch.randn(1, 5).double(), torch.randn(1, 4).double()
    z, log_det = family.flow(start, context)
    jacobian = torch.autograd.functional.jacobian(lambda s: family.flow(s, context)[0], start)[0, :, 0]
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian)[1])
    torch.testing.assert_close(family.flow.inverse(z, context), start)
    other = family.flow(start, context + 1)[0]
    assert not torch.allclose(other, z)  # the context has an effect


def test_an_iaf_posterior_starts_as_its_gaussian() -> None:
    family, params, noise = IAFPosterior(3, n_layers=2), torch.randn(5, 38), torch.randn(5, 3)
    mean, log_std = params[:, :6].chunk(2, 1)
    torch.testing.assert_close(family.mean(params), mean)
    expected = mean + (6 * (log_std / 6).tanh()).exp() * noise
    torch.testing.assert_close(family.transform(params, noise), expected)


@torch.no_grad()
def test_vamp_prior_of_one_pseudo_input_is_its_posterior() -> None:
    model = model_of({"name": "vamp", "n_components": 1}, "gaussian")
    model.head.weight.mul_(6)
    x = model.prior.pseudo_inputs()
    _, log_ratio, _ = model.sample_posterior_terms(x, None, model.posterior_params(x), 50)
    torch.testing.assert_close(log_ratio, torch.zeros(50, 1, dtype=torch.float64))
    _, log_ratio, _ = model.sample_posterior_terms(x, None, model.posterior_params(x + 1), 50)
    assert log_ratio.mean() > 0.01  # negative control: another input


@torch.no_grad()
def test_vamp_prior_of_all_data_has_the_mutual_information_as_kl() -> None:
    """The KL of the average posterior to itself is zero: what remains is I(x; z), between 0 and log N."""
    model = model_of({"name": "vamp", "n_components": 12}, "gaussian")
    model.head.weight.mul_(6)
    x = model.prior.pseudo_inputs()
    params = model.posterior_params(x)
    _, log_ratio, z = model.sample_posterior_terms(x, None, params, 4000)
    means = log_ratio.mean(0)
    mean, log_std = model.posterior(x)
    table = log_normal(z[:, :, None], mean, log_std)  # (k, N, N)
    information = (log_normal(z, mean, log_std) - table.logsumexp(2) + math.log(12)).mean()
    assert float(means.mean()) == pytest.approx(float(information), abs=1e-9)
    assert 0.1 < float(means.mean()) < math.log(12)


def test_pseudo_inputs_of_images_are_pixels() -> None:
    spec = DataSpec(Image(1, 4, 4), Label(2), name="images")
    model = VAE(spec, latent_dim=2, prior={"name": "vamp", "n_components": 5}, **SMALL)
    spec.x.validate(model.prior.pseudo_inputs().detach())
    model.loss((torch.rand(3, 1, 4, 4), torch.zeros(3).long()))["loss"].backward()
    assert model.prior.raw_inputs.grad.abs().max() > 0


def test_uniform_sphere_has_the_density_of_its_area() -> None:
    model = model_of("uniform_sphere", "vmf")
    assert float(model.log_prior(torch.eye(2).double())[0]) == pytest.approx(-math.log(2 * math.pi))
    assert log_sphere_area(2) == pytest.approx(math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"posterior": "vmf"},
            r"posterior=vmf: model.prior=standard does not cover .* model/prior=uniform_sphere",
        ),
        ({"prior": "uniform_sphere"}, r"model.prior=uniform_sphere does not cover .* Choose model/prior=standard"),
        ({"prior": "vamp", "posterior": "vmf"}, "does not cover"),
        ({"prior": "vamp", "conditional": True}, "pseudo-inputs have no labels"),
        ({"prior": "flow", "latent_dim": 1}, "have no two halves"),
        ({"posterior": "iaf", "regularizer": "tc"}, "needs the density of each latent alone"),
        ({"prior": "mixture", "regularizer": "mmd"}, "compared with a fixed prior"),
        ({"objective": "dreg", "beta": 2.0}, "needs model.beta=1"),
        ({"objective": "dreg", "posterior": "iaf"}, "needs model.beta=1"),
        ({"objective": "dreg", "regularizer": "dip"}, "needs model.beta=1"),
        ({"posterior": "iaf", "free_bits": 0.1}, "the KL must be a sum"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, message) -> None:
    with pytest.raises(ZooError, match=message):
        VAE(DataSpec(Vector(3), Label(2), name="points"), **{"latent_dim": 2, **options}, **SMALL)
