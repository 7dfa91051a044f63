"""Convolutional autoencoder of waveforms: lengths, strides, reach."""

import math

import pytest
import torch

from zoo.core.errors import ZooError
from zoo.nn.networks.seanet import SEANet


@pytest.mark.parametrize("strides", [(4, 4), (2, 3), (5,), (1, 2), (8, 5, 3)])
@pytest.mark.parametrize("samples", [1, 37, 120, 121, 240])
def test_lengths_come_back(strides, samples):
    network = SEANet((2, samples), 6, 5, 3, strides=strides, width=4)
    frames = math.ceil(samples / math.prod(strides))
    assert network.grid == (frames,)
    assert network.encode(torch.randn(2, 2, samples)).shape == (2, 6, frames)
    assert network.decode(torch.randn(2, 5, frames)).shape == (2, 3, samples)


@pytest.mark.parametrize("strides", [(4, 4), (3, 5)])
def test_a_vector_is_about_its_own_part_of_the_sound(strides):
    """The gradient of a vector is largest at its samples; that of a sample at its vector."""
    torch.manual_seed(0)
    stride = math.prod(strides)
    network = SEANet((1, 30 * stride), 8, 8, 1, strides=strides, width=8, dilations=(1,))
    x = torch.randn(1, 1, 30 * stride, requires_grad=True)
    (grad,) = torch.autograd.grad(network.encode(x)[0, :, 12].square().sum(), x)
    reach = grad[0, 0].nonzero().flatten()
    middle = (reach.min() + reach.max()) / 2
    assert abs(float(middle) - 12.5 * stride) <= stride / 2
    assert len(reach) < 12 * stride
    z = torch.randn(1, 8, 30, requires_grad=True)
    (grad,) = torch.autograd.grad(network.decode(z)[..., 12 * stride + stride // 2].square().sum(), z)
    frames = grad[0].abs().sum(0).nonzero().flatten()
    assert abs(float(frames.min() + frames.max()) / 2 - 12) <= 1


def test_other_data_is_refused():
    with pytest.raises(ZooError, match=r"needs sounds \(C, N\), but a sample here is 1x8x8"):
        SEANet((1, 8, 8), 4, 4, 1)
