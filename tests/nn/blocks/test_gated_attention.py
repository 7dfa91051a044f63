"""Self-attention of GANs against a loop over pixels; its place in the convolutional networks."""

import pytest
import torch
from torch import nn

from zoo.core.registry import build
from zoo.nn.blocks.gated_attention import GatedSelfAttention


def by_hand(block: GatedSelfAttention, x: torch.Tensor, turned: bool = False) -> torch.Tensor:
    """Equations 1 to 3 of SAGAN, pixel by pixel; `turned` takes the softmax over the wrong pixels."""
    result = x.clone()
    kernels = [part.weight[:, :, 0, 0] for part in (block.query, block.key, block.value, block.out)]
    for image, changed in zip(x, result, strict=True):
        pixels = list(image.flatten(1).T)  # H W of (C,)
        queries, keys, values = ([kernel @ p for p in pixels] for kernel in kernels[:3])
        scores = torch.stack([torch.stack([q @ k for k in keys]) for q in queries])  # of pixel i on pixel j
        weights = scores.exp() / scores.exp().sum(0 if turned else 1, keepdim=True)
        for i in range(len(pixels)):
            seen = sum(weights[i, j] * values[j] for j in range(len(pixels)))
            changed.view(len(changed), -1)[:, i] += block.gate * (kernels[3] @ seen)
    return result


def test_attention_is_a_sum_over_pixels() -> None:
    torch.manual_seed(0)
    block, x = GatedSelfAttention(16).double(), torch.randn(2, 16, 3, 4, dtype=torch.double)
    with torch.no_grad():
        block.gate.fill_(0.7)
        torch.testing.assert_close(block(x), by_hand(block, x))
        assert not torch.allclose(block(x), by_hand(block, x, turned=True), atol=1e-3), "negative control"


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_gate_begins_closed_and_opens(spectral_norm: bool) -> None:
    torch.manual_seed(0)
    block, x = GatedSelfAttention(8, spectral_norm), torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    block(x).square().sum().backward()
    assert block.gate.grad.abs() > 0, "so it learns"


def test_a_pixel_sees_one_that_no_convolution_reaches() -> None:
    torch.manual_seed(0)
    block, x = GatedSelfAttention(8), torch.randn(1, 8, 9, 9, requires_grad=True)
    for gate, seen in ((0.0, False), (1.0, True)):
        block.gate.data.fill_(gate)
        (gradient,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
        assert bool(gradient[0, :, 8, 8].abs().sum() > 0) == seen


def test_it_has_second_derivatives() -> None:
    torch.manual_seed(0)
    block = GatedSelfAttention(8).double()
    block.gate.data.fill_(1.0)
    x = torch.randn(1, 8, 2, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(block, x)


@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize(("largest", "n"), [(0, 0), (4, 1), (8, 2), (100, 3)])
def test_networks_attend_once_at_each_small_resolution(name: str, largest: int, n: int) -> None:
    """Of 16x14, 8x7 and 4x4; where there is none, the weights keep their names."""
    shape, width = (3, 16, 14), {"width": 8}
    for kind, given in (("encoder", (shape, 5)), ("decoder", (5, shape))):
        networks = []
        for option in ({}, {"attention_size": largest}):
            torch.manual_seed(0)
            networks.append(build(kind, {"name": name, **width, **option}, *given))
        plain, attending = networks
        found = [m for m in attending.modules() if isinstance(m, GatedSelfAttention)]
        assert len(found) == n
        assert (plain.state_dict().keys() == attending.state_dict().keys()) == (n == 0)
        sizes = []
        for block in found:
            block.register_forward_hook(lambda module, given, out, to=sizes: to.append(max(out.shape[-2:])))
        x = attending(torch.randn(2, *(shape if kind == "encoder" else (5,))))
        assert x.isfinite().all()
        assert sorted(set(sizes)) == sorted(sizes) == [4, 8, 16][:n]
        assert all(isinstance(m, nn.Conv2d) for block in found for m in (block.query, block.key, block.value))
