"""Networks for videos: shapes, gradients, and which frames an output depends on."""

import pytest
import torch
from torch import nn

from tests.nn.test_networks import check_gradients
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.nn.blocks.noise_embedding import Context
from zoo.nn.networks.frames import FramesDecoder, FramesEncoder
from zoo.nn.networks.space_time_unet import SpaceTimeUNet, TimeMixing

SHAPES = [(3, 1, 8, 8), (1, 1, 5, 3), (4, 3, 16, 12), (2, 1, 9, 7)]


def unet(shape, n_classes=0, context_width=0, **settings):
    torch.manual_seed(0)
    return SpaceTimeUNet(shape, 1, n_classes, 1, context_width, **{"width": 8, **settings})


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_unet_keeps_every_shape(shape, patch):
    z = torch.randn(2, *shape)
    out = unet(shape, 3, patch=patch)(z, torch.randn(2), torch.tensor([0, 2]))
    assert out.shape == z.shape
    assert torch.equal(out, torch.zeros_like(z)), "the head starts at zero"


def test_the_networks_learn_everywhere():
    x = torch.randn(4, 3, 1, 8, 8)
    network = unet((3, 1, 8, 8))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (network(x, torch.linspace(-2, 2, 4)) - x).square().sum().backward()
        optimizer.step()
    assert not [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    for norm in ("none", "batch", "group"):
        check_gradients(FramesEncoder((3, 1, 8, 6), 7, width=4, norm=norm), torch.randn(4, 3, 1, 8, 6))
        check_gradients(FramesDecoder(5, (3, 1, 8, 6), width=4, norm=norm), torch.randn(4, 5))


def test_an_untrained_time_layer_treats_frames_alone_and_a_trained_one_does_not():
    layer, x = TimeMixing(8, 4), torch.randn(3 * 4, 8, 5, 2)
    assert torch.equal(layer(x), x)
    nn.init.normal_(layer.out.weight)
    moved = x.clone()
    moved[1] = torch.randn(8, 5, 2)  # frame 1 of video 0
    change = (layer(moved) - layer(x)).abs().amax((1, 2, 3)) > 1e-6
    assert change.tolist() == [True] * 4 + [False] * 8, "all frames of one video, no other video"
    local = x.clone()
    local[1, :, 2, 1] += 1
    norm, layer.norm = layer.norm, nn.Identity()  # group norm sees all places
    place = (layer(local) - layer(x)).abs().amax((0, 1)) > 1e-6
    layer.norm = norm
    assert place.nonzero().tolist() == [[2, 1]], "time layers act at one place"


def test_frames_have_an_order():
    """Attention alone does not see order; learned positions and the convolution do."""
    layer, x = TimeMixing(8, 4), torch.randn(4, 8, 2, 2)
    nn.init.normal_(layer.out.weight)
    assert not torch.allclose(layer(x.flip(0)).flip(0), layer(x), atol=1e-4)
    nn.init.zeros_(layer.position)
    layer.conv.weight.data[..., 0] = layer.conv.weight.data[..., 2]  # without a direction
    assert torch.allclose(layer(x.flip(0)).flip(0), layer(x), atol=1e-5)


def test_texts_and_labels_have_an_effect():
    network = unet((2, 1, 8, 8), 3, context_width=6)
    nn.init.normal_(network.head.weight)
    z, noise = torch.randn(2, 2, 1, 8, 8), torch.zeros(2)
    texts = [Context(torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)) for _ in range(2)]
    outs = [
        network(z, noise, torch.tensor(y), text)
        for y, text in (([0, 1], texts[0]), ([0, 2], texts[0]), ([0, 1], texts[1]))
    ]
    assert torch.allclose(outs[0][0], outs[1][0], atol=1e-6)
    assert not torch.allclose(outs[0][1], outs[1][1], atol=1e-4)
    assert not torch.allclose(outs[0][0], outs[2][0], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_of_encoders_and_decoders(shape):
    torch.manual_seed(0)
    encoder, decoder = FramesEncoder(shape, 7, width=4), FramesDecoder(5, shape, width=4)
    x, z = torch.rand(3, *shape), torch.randn(3, 5)
    assert encoder(x).shape == (3, 7)
    assert decoder(z).shape == (3, *shape)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]))
    torch.testing.assert_close(decoder(z)[1:2], decoder(z[1:2]))
    if shape[0] > 1:
        assert not torch.allclose(encoder(x.flip(1)), encoder(x)), "the order of frames matters"


def test_auto_chooses_networks_of_videos_and_others_are_refused():
    shape = (2, 1, 8, 8)
    assert type(registry.build("encoder", "auto", shape, 3)) is FramesEncoder
    assert type(registry.build("decoder", "auto", 3, shape)) is FramesDecoder
    assert type(registry.build("denoiser", "auto", shape, 1, 0)) is SpaceTimeUNet
    for build in (lambda: FramesEncoder((1, 8, 8), 3), lambda: FramesDecoder(3, (1, 8, 8)), lambda: unet((1, 8, 8))):
        with pytest.raises(ZooError, match="needs videos"):
            build()
