"""Folding pixels into channels loses none, and a U-Net on patches gives and sees every pixel."""

from contextlib import nullcontext

import pytest
import torch

from tests.nn.test_networks import check_gradients
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.nn.blocks.folding import Folding

SIZES = [(8, 8), (28, 28), (5, 3), (1, 1), (7, 12)]


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_folding_then_unfolding_is_the_identity(size, patch):
    if patch > max(*size, 2):
        pytest.skip("refused, see below")
    x = torch.randn(2, 3, *size)
    folding = Folding(*size, patch)
    h = folding.fold(x)
    assert h.shape == (2, 3 * patch**2, folding.rows, folding.columns)
    assert folding.rows == -(-size[0] // patch)
    assert torch.equal(folding.unfold(h), x)
    assert h.abs().sum() == pytest.approx(x.abs().sum().item(), rel=1e-5), "the padding is zero"
    if patch > 1 and size == (8, 8):
        assert not torch.equal(folding.unfold(h.flip(1)), x), "the order of channels matters"


def test_a_channel_is_one_place_in_every_patch():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert Folding(4, 4, 2).fold(x)[0].flatten(1).tolist() == [
        [0, 2, 8, 10],
        [1, 3, 9, 11],
        [4, 6, 12, 14],
        [5, 7, 13, 15],
    ]


@pytest.mark.parametrize("name", ["dit", "unet"])
def test_a_patch_larger_than_the_image_is_refused(name):
    """It would be padding for the most part; the largest patch is the whole image."""
    for patch in (8, 9):
        with pytest.raises(ZooError, match="larger than images of 8x8 pixels") if patch > 8 else nullcontext():
            registry.build("denoiser", {"name": name, "patch": patch}, (1, 8, 8), 1, 3)


def unet(shape, n_out=1, **settings):
    torch.manual_seed(0)
    return registry.build("denoiser", {"name": "unet", "width": 16, **settings}, shape, n_out, 3)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("shape", [(c, *size) for c in (1, 3) for size in SIZES])
def test_a_unet_on_patches_keeps_every_shape(shape, patch):
    if patch > max(*shape[1:], 2):
        pytest.skip("refused, see above")
    network, z = unet(shape, 2, patch=patch), torch.randn(2, *shape)
    out = network(z, torch.randn(2), torch.tensor([0, 2]))
    assert out.shape == (2, 2 * shape[0], *shape[1:])
    assert not out.any(), "the head starts at zero"


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_every_pixel_reaches_the_output_at_its_place_alone(patch):
    """With every layer but the first, the last and one skip set aside, a pixel acts on its neighbourhood."""
    network = unet((1, 12, 12), patch=patch, multipliers=(1,), attention_size=0).eval()
    torch.nn.init.normal_(network.head.weight)
    network.through_levels = lambda h, condition, context: h
    z = torch.randn(1, 1, 12, 12)
    moved = z.clone()
    moved[0, 0, 5, 7] += 1
    with torch.no_grad():
        change = (network(moved, torch.zeros(1)) - network(z, torch.zeros(1))).abs()[0, 0] > 1e-6
    rows, columns = (line.flatten().tolist() for line in change.nonzero().T)
    assert change[5, 7]
    assert max(abs(r // patch - 5 // patch) for r in rows) == 2, "two layers of 3x3 places"
    assert max(abs(c // patch - 7 // patch) for c in columns) == 2
    assert not change.all() or patch == 3


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
def test_every_parameter_learns_on_patches(shape):
    network = unet(shape, patch=2)
    noise, y = torch.linspace(-1, 1, 4), torch.tensor([0, 1, 2, 3])
    check_gradients(_Given(network, noise, y), torch.randn(4, *shape))


class _Given(torch.nn.Module):
    """A network with its noise levels and classes given."""

    def __init__(self, network, noise, y):
        super().__init__()
        self.network, self.noise, self.y = network, noise, y

    def forward(self, z):
        return self.network(z, self.noise, self.y)
