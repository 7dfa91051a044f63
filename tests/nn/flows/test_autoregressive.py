"""MAF and IAF: triangular Jacobians, zuko's densities with copied weights, and a Gaussian by a linear flow."""

import math

import pytest
import torch
import zuko
from torch import nn

from tests.nn.flows.transforms import build, inputs, jacobian, randomised
from zoo.nn.distributions.likelihoods import soft_clamp
from zoo.nn.flows.autoregressive import MADE, MaskedAutoregressive, autoregressive
from zoo.nn.flows.base import Chain, Inverted
from zoo.nn.flows.univariate import LOG_SCALE_BOUND, Affine, RationalQuadratic


def log_normal(z):
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_parameters_depend_on_earlier_values_only(depth):
    made = randomised(MADE(5, 2, 0, 16, depth, 0.0))
    x = torch.randn(5, dtype=torch.float64)
    found = torch.autograd.functional.jacobian(lambda v: made(v[None])[0], x)  # (D, P, D)
    earlier = torch.ones(5, 5).tril(-1).bool()
    assert found.abs().amax(1)[~earlier].max() == 0
    assert found.abs().amax(1)[earlier].min() > 1e-6, "on all of them"


def test_a_wrong_mask_is_found():
    made = randomised(MADE(5, 2, 0, 16, 1, 0.0))
    made.layers[-1].mask.fill_(True)
    found = torch.autograd.functional.jacobian(lambda v: made(v[None])[0], torch.randn(5, dtype=torch.float64))
    assert found.abs().amax(1).triu().max() > 1e-3


def test_the_jacobian_of_a_layer_is_triangular():
    layer = randomised(MaskedAutoregressive(Affine(), MADE(6, 2, 0, 16, 2, 0.0)))
    found = jacobian(lambda v: layer(v)[0], torch.randn(6, dtype=torch.float64))
    assert found.triu(1).abs().max() == 0
    assert (found.diag() > 0).all()


def test_an_inverse_flow_is_the_same_map_backwards():
    iaf, x = build("iaf"), inputs("iaf")
    maf = iaf.transform
    assert isinstance(iaf, Inverted)
    with torch.no_grad():
        assert torch.equal(iaf.inverse(x), maf(x)[0])
        torch.testing.assert_close(iaf(x)[0], maf.inverse(x))


def zuko_affine(mean, raw):
    """Our parameters as zuko's x exp(s) + t, with its own bound on s undone."""
    log_scale = soft_clamp(raw, LOG_SCALE_BOUND)
    return zuko.transforms.MonotonicAffineTransform(
        -mean * log_scale.exp(), log_scale / (1 - log_scale.abs() / -math.log(1e-3))
    )


def zuko_spline(*params):
    """Our knots in zuko's spline."""
    theirs = zuko.transforms.MonotonicRQSTransform(*params, bound=2.0)
    theirs.horizontal, theirs.vertical, theirs.derivatives = RationalQuadratic(4, 2.0).knots(torch.cat(params, -1))
    return theirs


@pytest.mark.parametrize(
    ("kind", "theirs", "shapes"), [("affine", zuko_affine, [(), ()]), ("spline", zuko_spline, [(4,), (4,), (3,)])]
)
def test_log_prob_is_zukos_for_copied_weights(kind, theirs, shapes):
    torch.manual_seed(0)
    oracle = zuko.flows.MAF(
        4, transforms=3, univariate=theirs, shapes=shapes, hidden_features=(16, 16), activation=nn.SiLU
    ).double()
    ours = autoregressive((4,), 0, univariate=kind, n_layers=3, bins=4, bound=2.0, width=16, depth=2).double().eval()
    layers = [part for part in ours.transform.parts if isinstance(part, MaskedAutoregressive)]
    sources = [part for part in oracle.transform.transforms if hasattr(part, "hyper")]
    with torch.no_grad():
        for number, (mine, source) in enumerate(zip(layers, sources, strict=True)):
            copied = [m for m in source.hyper if isinstance(m, nn.Linear)]
            # zuko alternates the order of the dependencies, and we that of the values.
            flip = number % 2 == 1
            for i, (to, frm) in enumerate(
                zip([m for m in mine.made.layers if hasattr(m, "mask")], copied, strict=True)
            ):
                weight, bias, mask = frm.weight * 2, frm.bias, frm.mask
                if flip and i == 0:
                    weight, mask = weight.flip(1), mask.flip(1)
                if flip and i == len(copied) - 1:
                    weight, mask = (v.unflatten(0, (4, -1)).flip(0).flatten(0, 1) for v in (weight, mask))
                    bias = bias.unflatten(0, (4, -1)).flip(0).flatten()
                to.weight.copy_(weight)
                to.bias.copy_(bias)
                to.mask.copy_(mask)
                frm.weight.mul_(2)
        x = 1.5 * torch.randn(50, 4, dtype=torch.float64)
        z, log_det = ours(x)
        want = oracle().log_prob(x)
        torch.testing.assert_close(log_normal(z) + log_det, want, rtol=0, atol=1e-10)
        torch.testing.assert_close(ours.inverse(z), x, rtol=0, atol=1e-9)
        layers[0].made.layers[0].bias[0] += 0.1
        assert not torch.allclose(log_normal(ours(x)[0]) + ours(x)[1], want, atol=1e-4)


def gaussian(dim=3):
    generator = torch.Generator().manual_seed(2)
    factor = torch.randn(dim, dim, generator=generator, dtype=torch.float64).tril(-1)
    factor += torch.diag(0.5 + torch.rand(dim, generator=generator, dtype=torch.float64))
    return torch.distributions.MultivariateNormal(torch.arange(dim).double(), scale_tril=factor)


def test_a_linear_flow_is_a_gaussian():
    """z = L^-1 (x - m) in closed form: means are linear in earlier values, and scales are constant."""
    target = gaussian()
    inverse = target.scale_tril.inverse()
    flow = autoregressive((3,), 0, n_layers=1, depth=0).double()
    (layer,) = flow.transform.parts
    head = layer.made.layers[0]
    with torch.no_grad():
        head.weight.zero_()
        rows = inverse / inverse.diag()[:, None]
        head.weight.view(3, 2, 3)[:, 0] = -rows.tril(-1)
        head.bias.view(3, 2)[:, 0] = rows @ target.mean
        head.bias.view(3, 2)[:, 1] = LOG_SCALE_BOUND * torch.atanh(inverse.diag().log() / LOG_SCALE_BOUND)
        x = target.sample((20,))
        z, log_det = flow(x)
    torch.testing.assert_close(log_normal(z) + log_det, target.log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("scales", "gap"), [(True, 1e-3), (False, None)])
def test_a_linear_flow_fits_a_gaussian_to_its_entropy(scales, gap):
    """With exact moments, as the negative log-likelihood of a linear flow has a closed form. Scales are needed."""
    target = gaussian()
    flow = autoregressive((3,), 0, n_layers=1, depth=0).double()
    head = flow.transform.parts[0].made.layers[0]
    # Sigma points have the mean and the covariance of the Gaussian.
    steps = math.sqrt(3) * torch.cat([target.scale_tril.mT, -target.scale_tril.mT])
    x = target.mean + steps
    keep = torch.ones(3, 2, 3, dtype=torch.float64)
    keep[:, 1] = 0  # scales do not depend on values
    optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        z, log_det = flow(x)
        loss = -(log_normal(z) + log_det).mean()
        loss.backward()
        head.weight.grad.mul_(keep.view(6, 3))
        if not scales:
            head.bias.grad.view(3, 2)[:, 1] = 0
        return loss

    optimizer.step(closure)
    excess = closure().item() - target.entropy().item()
    assert excess > 0.05 if gap is None else abs(excess) < gap


def test_layers_alternate_in_order():
    flow = autoregressive((4,), 0, n_layers=2, width=8, depth=1)
    assert isinstance(flow.transform, Chain)
    found = jacobian(lambda v: randomised(flow)(v)[0], torch.randn(4, dtype=torch.float64))
    assert (found.abs() > 1e-9).all(), "two orders make every value depend on every other"
