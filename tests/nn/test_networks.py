"""Every registered network on every size of image that a user may bring, and on vectors."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import zoo
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Vector
from zoo.nn.blocks.layers import norm1d, norm2d, resolutions
from zoo.nn.networks.conv import ConvDecoder, ConvEncoder
from zoo.nn.networks.mlp import MLPDecoder, MLPEncoder
from zoo.nn.networks.resnet import Block

SIZES = [(8, 8), (28, 28), (32, 32), (64, 64), (48, 80), (33, 17), (5, 3), (1, 1)]
IMAGES = [(3 - 2 * (i % 2), *size) for i, size in enumerate(SIZES)]  # colours and grey in turn
VECTORS = [(2,), (64,)]
PEERS = ("strided", "upsampling")  # another project's, as they are, for tests/test_peers.py: of its image sizes only
VIDEOS = ("frames",)  # see tests/nn/networks/test_video.py
ITEMS = ("item_mlp",)  # of sets of items, without norms; `tests/contracts` run on its model
SMALL = {"width": 4}  # of every network here: shapes do not depend on it


def names(kind):
    return [name for name in registry.names(kind) if name not in PEERS + ITEMS + VIDEOS]


def fits(name, shape):
    return len(shape) == 3 or name in ("auto", "mlp")


def takes(kind, name, settings):
    return settings.keys() <= {s.name for s in registry.peek(kind, name).settings}


ENCODERS = [(n, s) for n in names("encoder") for s in IMAGES + VECTORS if fits(n, s)]
DECODERS = [(n, s) for n in names("decoder") for s in IMAGES + VECTORS if fits(n, s)]


def encoder(name, shape, out_dim=7, **settings):
    torch.manual_seed(0)
    return registry.build("encoder", {"name": name, **SMALL, **settings}, shape, out_dim)


def decoder(name, shape, in_dim=5, **settings):
    torch.manual_seed(0)
    return registry.build("decoder", {"name": name, **SMALL, **settings}, in_dim, shape)


def test_the_zoo_has_its_networks():
    assert {"auto", "conv", "mlp", "resnet"} <= set(names("encoder")) & set(names("decoder"))


@pytest.mark.parametrize(("name", "shape"), ENCODERS)
def test_encoders_give_features(name, shape):
    network = encoder(name, shape)
    for batch in (1, 3):
        features = network(torch.rand(batch, *shape))
        assert features.shape == (batch, 7)
        assert features.isfinite().all()


@pytest.mark.parametrize(("name", "shape"), DECODERS)
def test_decoders_give_data(name, shape):
    network = decoder(name, shape)
    for batch in (3, 1):
        x = network.train(batch > 1)(torch.randn(batch, 5))  # statistics of one pixel of one image fail
        assert x.shape == (batch, *shape)
        assert x.isfinite().all()


def check_gradients(network, x):
    """Finite everywhere, and nowhere zero once weights that begin at zero have moved."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        out = network(x)
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
    dead = [name for name, p in network.named_parameters() if p.grad.abs().max() == 0]
    assert not dead


SETTINGS = [{}, *[{"norm": n} for n in ("batch", "group", "layer")], {"spectral_norm": True}, {"attention_size": 9}]


def choices(kind):
    """Each network with each setting on a square and on a vector, and two settings on an odd rectangle."""
    return [
        (name, shape, settings)
        for name in names(kind)
        for shape, some in (((1, 8, 8), SETTINGS), ((3, 33, 17), [SETTINGS[0], SETTINGS[-1]]), ((6,), SETTINGS))
        for settings in some
        if fits(name, shape) and takes(kind, name, settings)
    ]


@pytest.mark.parametrize(("name", "shape", "settings"), choices("encoder"), ids=str)
def test_every_parameter_of_an_encoder_learns(name, shape, settings):
    check_gradients(encoder(name, shape, **settings), torch.rand(4, *shape))


@pytest.mark.parametrize(("name", "shape", "settings"), choices("decoder"), ids=str)
def test_every_parameter_of_a_decoder_learns(name, shape, settings):
    check_gradients(decoder(name, shape, **settings), torch.randn(4, 5))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu", "gelu", "tanh"])
@pytest.mark.parametrize("name", ["conv", "mlp", "resnet"])
def test_every_activation(name, activation):
    network = encoder(name, (1, 9, 6), activation=activation)
    check_gradients(network, torch.randn(3, 1, 9, 6))
    check_gradients(decoder(name, (1, 9, 6), activation=activation), torch.randn(3, 5))


@pytest.mark.parametrize("name", names("encoder"))
def test_gradient_penalties_can_be_taken(name):
    """The gradient of the squared gradient norm, as in WGAN-GP and R1; checked against finite differences."""
    network = encoder(name, (1, 7, 6), out_dim=1, **({} if name == "auto" else {"activation": "silu"})).double()
    x = torch.rand(2, 1, 7, 6, dtype=torch.double, requires_grad=True)

    def penalty():
        (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        return gradient.square().sum()

    weight = next(p for p in network.parameters() if p.ndim > 1)
    (exact,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn(weight.shape, dtype=torch.double)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-6 * direction
        values.append(penalty().item())
        with torch.no_grad():
            weight -= sign * 1e-6 * direction
    assert (values[0] - values[1]) / 2e-6 == pytest.approx((exact * direction).sum().item(), rel=1e-4)


@pytest.mark.parametrize("name", names("encoder"))
def test_samples_do_not_see_each_other(name):
    """The output of a sample does not depend on its batch: with batch norm in evaluation, else always."""
    x, z = torch.rand(5, 3, 10, 12), torch.randn(5, 5)
    for norm in ("none", "group", "layer", "batch"):
        enc, dec = encoder(name, (3, 10, 12), norm=norm), decoder(name, (3, 10, 12), norm=norm)
        if norm == "batch":
            enc.eval(), dec.eval()
        torch.testing.assert_close(enc(x)[2:3], enc(x[2:3]))
        torch.testing.assert_close(dec(z)[2:3], dec(z[2:3]))


@pytest.mark.parametrize("name", names("encoder"))
def test_spectral_norm_makes_every_layer_one_lipschitz(name):
    for shape in [(3, 16, 16), (6,)]:
        if not fits(name, shape):
            continue
        for network, x in (
            (encoder(name, shape, width=8, spectral_norm=True), torch.rand(2, *shape)),
            (decoder(name, shape, width=8, spectral_norm=True), torch.randn(2, 5)),
        ):
            for _ in range(30):  # power iterations
                network(x)
            layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
            assert layers
            for layer in layers:
                largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
                assert largest == pytest.approx(1, abs=0.03), layer


@pytest.mark.parametrize("name", names("encoder"))
def test_without_spectral_norm_there_is_none(name):
    assert not any("parametrizations" in key for key in encoder(name, (1, 8, 8)).state_dict())


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_convolutions_refuse_vectors_with_advice(name):
    for build in (encoder, decoder):
        with pytest.raises(ZooError, match=rf"network={name}: needs images .* a vector of 2. Choose mlp"):
            build(name, (2,))


@pytest.mark.parametrize("recipe", ["dcgan", "lsgan", "sngan", "jit", "sit", "gan", "vae", "flow_matching"])
def test_a_recipe_is_listed_with_the_data_that_its_networks_accept(recipe):
    accepts = zoo.model_info(recipe).accepts
    assert "image" in accepts
    with nullcontext() if "vector" in accepts else pytest.raises(ZooError, match="needs images"):
        zoo.create_model(recipe, data=zoo.DataSpec(Vector(2)))
    assert {"dcgan": False, "gan": True}.get(recipe, "vector" in accepts) == ("vector" in accepts)


def test_auto_is_conv_for_images_and_mlp_for_vectors():
    for kind, shape, network in (
        ("encoder", (1, 8, 8), ConvEncoder),
        ("encoder", (8,), MLPEncoder),
        ("decoder", (1, 8, 8), ConvDecoder),
        ("decoder", (8,), MLPDecoder),
    ):
        given = (shape, 3) if kind == "encoder" else (3, shape)
        torch.manual_seed(0)
        auto = registry.build(kind, {"name": "auto", "norm": "batch", "spectral_norm": False}, *given)
        torch.manual_seed(0)
        plain = network(*given, norm="batch" if len(shape) == 3 else "none")  # of convolutions only
        assert type(auto) is network
        for a, b in zip(auto.state_dict().values(), plain.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    assert encoder("auto", (1, 8, 8), width=6).body[0].out_channels == 6


# -- the parts -----------------------------------------------------------------------------------------------


def test_the_pyramid_of_resolutions():
    assert resolutions(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert resolutions(48, 80) == [(48, 80), (24, 40), (12, 20), (6, 10), (3, 5)]
    assert resolutions(33, 17) == [(33, 17), (17, 9), (9, 5), (5, 3)]
    assert resolutions(4, 100) == [(4, 100)]


@pytest.mark.parametrize("size", SIZES)
def test_a_conv_encoder_passes_through_the_pyramid(size):
    network, x = encoder("conv", (1, *size)), torch.rand(1, 1, *size)
    seen = []
    for layer in network.body:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            seen.append(tuple(x.shape[-2:]))
    assert seen == resolutions(*size)


@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (33, 17)])
def test_every_pixel_is_seen_and_every_pixel_is_made(name, size):
    x = torch.rand(1, 1, *size, requires_grad=True)
    network = encoder(name, (1, *size), activation="tanh")
    network(x).square().sum().backward()
    assert (x.grad != 0).all()
    z = torch.randn(64, 5)
    assert (decoder(name, (1, *size))(z).std(dim=0) > 0).all()


@pytest.mark.parametrize("size", [None, (14, 10), (7, 5)])
def test_a_residual_block_begins_as_the_identity(size):
    """At a new size it begins as resizing: nearest neighbours upwards, block means downwards."""
    torch.manual_seed(0)
    block, x = Block(4, 4, "relu", "none", False, size), torch.randn(2, 4, 14, 10)
    expected = x if size != (7, 5) else x.unflatten(3, (5, 2)).unflatten(2, (7, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(block(x), expected)
    up = Block(4, 4, "relu", "none", False, (28, 20))
    torch.testing.assert_close(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_resizing_an_odd_size_keeps_the_rest_by_itself():
    block, x = Block(1, 1, "relu", "none", False, (3, 2)), torch.arange(15.0).view(1, 1, 5, 3)
    rows = [
        [x[0, 0, i : i + 2, j : j + 2].mean().item() for j in (0, 2)]  # slices stop at the edge
        for i in (0, 2, 4)
    ]
    torch.testing.assert_close(block.resize(x)[0, 0], torch.tensor(rows))


def test_a_residual_block_is_the_sum_it_says_it_is():
    torch.manual_seed(0)
    block = Block(2, 3, "silu", "group", False, (2, 2))
    nn.init.normal_(block.conv2.weight)
    x, silu = torch.randn(2, 2, 4, 4), nn.functional.silu
    inner = block.conv2(silu(block.norm2(block.conv1(silu(block.norm1(x))))))
    pooled = nn.functional.avg_pool2d(block.skip(x), 2) + nn.functional.avg_pool2d(inner, 2)
    torch.testing.assert_close(block(x), pooled)


def test_norms():
    x = torch.randn(8, 12, 5, 5) * 3 + 2
    torch.testing.assert_close(norm2d("batch", 12)(x).mean((0, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm2d("layer", 12)(x).mean((1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    for channels in (1, 4, 12, 32, 96, 100):
        assert norm2d("group", channels)(torch.randn(2, channels, 3, 3)).isfinite().all()
    assert torch.equal(norm2d("none", 12)(x), x)
    torch.testing.assert_close(norm1d("group", 12)(x[:, :, 0, 0]).mean(1), torch.zeros(8), atol=1e-5, rtol=0)
