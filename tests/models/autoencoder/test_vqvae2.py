"""Two levels of codes: their order in a row, what each depends on, and the use of both codebooks."""

import math

import pytest
import torch

from tests.contracts.specs import examples, make
from zoo.core.spaces import Codes
from zoo.nn.losses.jacobian import jacobian_norm


@pytest.fixture(scope="module")
def model():
    """With a codebook that the first batch has filled."""
    model = make("vqvae2", "image", quantizer={"name": "vq", "n_codes": 32})
    torch.manual_seed(0)
    model.quantize(examples(model.spec, 64).x)
    return model.double().eval()


def test_a_row_has_all_top_codes_and_then_all_bottom_codes(model):
    x = examples(model.spec, 20).x.double()
    assert model.latent_space() == Codes((4 + 16,), 32)
    row = model.to_latent(x)
    features = model.network.encode(x)
    top = model.top_quantizer(model.top.encode(features))
    assert torch.equal(row[:, :4], top.codes.flatten(1))
    bottom = model.quantizer(model.join(torch.cat([features, model.top.decode(top.z)], 1)))
    assert torch.equal(row[:, 4:], bottom.codes.flatten(1))
    torch.testing.assert_close(model.from_latent(row), model.reconstruct(x))
    other_order = torch.cat([row[:, 4:], row[:, :4]], 1)
    assert not torch.allclose(model.from_latent(other_order), model.reconstruct(x), atol=1e-3)
    without = model.quantizer(model.join(torch.cat([features, torch.zeros_like(model.top.decode(top.z))], 1)))
    assert not torch.equal(without.codes, bottom.codes), "the bottom codes are given the top codes"


def test_both_levels_reach_the_image_and_the_gradient_passes_both_quantisers(model):
    x = examples(model.spec, 4).x.double()
    row = model.to_latent(x)
    for places in (slice(0, 4), slice(4, 20)):
        changed = row.clone()
        changed[:, places] = (changed[:, places] + 1) % 32
        assert not torch.allclose(model.from_latent(changed), model.from_latent(row), atol=1e-4)
    model.zero_grad()
    (-model.observation_log_prob(x, model.quantize(x).z).mean()).backward()  # without the losses of the quantisers
    for part in (model.network.encoder, model.top.encoder, model.top.decoder, model.join):
        assert sum(p.grad.abs().sum() for p in part.parameters()) > 1e-3
    assert jacobian_norm(lambda x: model.quantize(x).z, x, 1).min() > 0


def test_each_codebook_is_counted(model):
    x = examples(model.spec, 20).x.double()
    row, counts = model.to_latent(x), model.code_counts(x)
    assert counts.shape == (2, 32)
    assert torch.equal(counts[0], torch.bincount(row[:, :4].flatten(), minlength=32))
    assert torch.equal(counts[1], torch.bincount(row[:, 4:].flatten(), minlength=32))
    assert counts.sum(1).tolist() == [80, 320]
    assert not torch.equal(counts[0] * 4, counts[1])


@pytest.mark.parametrize(("data", "shapes"), [("wide", ((2, 2), (3, 4))), ("image", ((2, 2), (4, 4)))])
@pytest.mark.parametrize("depth", [1, 2])
def test_odd_sides_and_residual_codes(data, shapes, depth):
    quantizer = {"name": "rvq", "n_codes": 8, "depth": 2} if depth == 2 else {"name": "fsq", "levels": [3, 3]}
    model = make("vqvae2", data, quantizer=quantizer).eval()
    deep = (2,) if depth == 2 else ()
    assert model.shapes == tuple((*shape, *deep) for shape in shapes)
    x = examples(model.spec, 3).x
    row = model.to_latent(x)
    assert row.shape[1] == depth * sum(math.prod(shape) for shape in shapes)
    torch.testing.assert_close(model.from_latent(row), model.reconstruct(x), rtol=1e-4, atol=1e-5)
