"""The ladder VAE against quadrature, the plain VAE and closed forms of Gaussians."""

import math

import pytest
import torch
from torch import distributions as D

from zoo.core.errors import ZooError
from zoo.core.spaces import Vector
from zoo.core.spec import DataSpec
from zoo.models.variational.ladder import LadderVAE, kl, product
from zoo.models.variational.vae import VAE

POINTS = DataSpec(Vector(3), name="points")
SMALL = {"encoder": {"name": "mlp", "width": 8, "depth": 1}, "decoder": {"name": "mlp", "width": 8, "depth": 1}}
FIXED = {"name": "gaussian", "variance": "fixed", "std": 1.0}


def normals(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 2).double(), 0.5 * torch.randn(n, 2).double()


def test_product_and_kl_are_those_of_gaussians() -> None:
    torch.manual_seed(0)
    one, two, x = normals(5), normals(5), torch.linspace(-3, 3, 7).double()[:, None, None]
    densities = [D.Normal(mean, log_std.exp()).log_prob(x) for mean, log_std in (one, two, product(one, two))]
    constant = densities[0] + densities[1] - densities[2]  # proportional: the same at every point
    torch.testing.assert_close(constant, constant[:1].expand_as(constant))
    wrong = D.Normal(*(v.exp() if i else v for i, v in enumerate(one))).log_prob(x) - densities[2]
    assert float(wrong.std(0).min()) > 1e-3  # negative control
    first, second = (D.Normal(mean, log_std.exp()) for mean, log_std in (one, two))
    torch.testing.assert_close(kl(one, two), D.kl_divergence(first, second))
    assert float(kl(one, one).abs().max()) == 0


def model_of(latent_dims: list[int]) -> LadderVAE:
    torch.manual_seed(1)
    model = LadderVAE(POINTS, latent_dims=latent_dims, feature_dim=8, width=8, likelihood=FIXED, **SMALL).double()
    with torch.no_grad():
        for module in (model.encoder, model.decoder, model.heads):
            for p in module.parameters():
                p.mul_(1.5)
        for head in model.heads:
            head.bias[len(head.bias) // 2 :] += 0.4  # wider than the posterior, so that weights are bounded
    return model.eval()


@torch.no_grad()
def test_importance_weights_average_to_the_integral_over_both_levels() -> None:
    model, k = model_of([1, 1]), 40_000
    first, top = torch.linspace(-25, 25, 601, dtype=torch.float64), torch.linspace(-7, 7, 141, dtype=torch.float64)
    first, top = torch.cartesian_prod(first, top).split(1, dim=1)
    log_pz = D.Normal(0.0, 1.0).log_prob(top)[:, 0]
    mean, log_std = model.prior_of(0, top, first)
    log_pz = log_pz + D.Normal(mean, log_std.exp()).log_prob(first)[:, 0]
    area = 50 / 600 * 14 / 140
    assert float(log_pz.exp().sum() * area) == pytest.approx(1, abs=1e-6)
    x = torch.tensor([[0.4, -0.7, 0.6]], dtype=torch.float64)
    exact = (model.log_px(x, first) + log_pz).logsumexp(0) + math.log(area)
    drawn, ratios, _ = model.infer(x, k)
    weights = (model.log_px(x, drawn[-1]) - sum(ratios) - exact).exp()
    error = float(weights.std()) / math.sqrt(k)
    assert float(weights.mean()) == pytest.approx(1, abs=4 * error)
    assert error < 0.02
    top_only = (model.log_px(x, drawn[-1]) - ratios[0] - exact).exp()  # negative control: a level left out
    assert abs(float(top_only.mean()) - 1) > 4 * float(top_only.std()) / math.sqrt(k)
    assert float(model.iw_bound(x, 2000)) == pytest.approx(float(exact), abs=5 * error * math.sqrt(k / 2000))
    bounds = [float(model.iw_bound(x.expand(3000, -1), n).mean()) for n in (1, 10)]
    assert bounds[0] < bounds[1] < float(exact) + 0.01


@torch.no_grad()
def test_closed_form_kls_are_means_of_the_ratios() -> None:
    model, k = model_of([2, 2, 1]), 20_000
    drawn, ratios, divergences = model.infer(torch.tensor([[0.4, -0.7, 0.6]], dtype=torch.float64), k)
    assert [z.shape[1] for z in drawn] == [1, 2, 2]
    for ratio, divergence in zip(ratios, divergences, strict=True):
        gap = ratio - divergence
        assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(k)
        assert float(divergence.min()) >= 0
    assert float((ratios[0] - divergences[1]).mean().abs()) > 0.01  # negative control: levels interchanged


def test_one_level_is_the_plain_vae() -> None:
    ladder, plain = model_of([2]), VAE(POINTS, latent_dim=2, feature_dim=8, likelihood=FIXED, **SMALL).double()
    weights = {name.replace("heads.0.", "head."): value for name, value in ladder.state_dict().items()}
    plain.load_state_dict(weights)
    x, values = torch.randn(6, 3).double(), []
    for model in (ladder, plain):
        torch.manual_seed(2)
        values.append(model.loss((x, torch.zeros(6).long())))
    for name in ("loss", "kl", "reconstruction"):
        torch.testing.assert_close(values[0][name], values[1][name])


@torch.no_grad()
def test_without_evidence_the_posterior_of_lower_levels_is_the_prior() -> None:
    model = model_of([2, 2])
    model.heads[0].weight.zero_()
    model.heads[0].bias.copy_(torch.tensor([0.0, 0.0, 50.0, 50.0]))  # a precision of exp(-12)
    _, _, divergences = model.infer(torch.randn(50, 3).double(), 1)
    assert float(divergences[1].max()) < 1e-3
    assert float(divergences[0].min()) > 1e-3  # the top has its own evidence


def test_no_levels_are_refused() -> None:
    with pytest.raises(ZooError, match=r"latent_dims=\[\]: no levels"):
        LadderVAE(POINTS, latent_dims=())


def test_annealing_and_beta_weigh_all_levels(monkeypatch) -> None:
    model, x = LadderVAE(POINTS, beta=2.0, kl_warmup_steps=9, **SMALL), (torch.randn(6, 3), torch.zeros(6).long())
    monkeypatch.setattr(LadderVAE, "step", 4)
    for mode, factor in ((True, 1.0), (False, 2.0)):
        terms = model.train(mode).loss(x)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + factor * terms["kl"])
        torch.testing.assert_close(terms["kl"], terms["kl_1"] + terms["kl_2"])


@torch.no_grad()
def test_draws_of_the_prior_have_its_moments() -> None:
    """E z_1 and E z_1^2 by the conditional moments given many z_2."""
    model, n = model_of([1, 1]), 40_000
    drawn = model.descend(torch.randn(n, 2).double())
    mean, log_std = model.prior_of(0, torch.randn(n, 1).double(), drawn[:, 1:])
    for found, expected in ((drawn[:, 1], mean[:, 0]), (drawn[:, 1] ** 2, (mean.square() + (2 * log_std).exp())[:, 0])):
        error = float((found.var() + expected.var()).sqrt()) / math.sqrt(n)
        assert abs(float(found.mean() - expected.mean())) < 4 * error
    assert model.sample(3, generator=torch.Generator().manual_seed(0)).shape == (3, 3)
