"""Layouts in memory: the same numbers, and optimizers that do not mix them up."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import zoo
from zoo.core.spaces import Image, Label
from zoo.nn.blocks.layers import channels_last, norm2d
from zoo.nn.optim.factory import match_state_layout


def test_kernels_with_channels_last_compute_the_same() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3), spectral_norm(nn.Conv2d(4, 2, 3)))
    net.eval()
    x = torch.randn(2, 3, 8, 8)
    before = net(x)
    channels_last(net)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[0](x).is_contiguous(memory_format=torch.channels_last), "what follows is laid out alike"
    assert net[3].parametrizations.weight.original.is_contiguous(), "computed at every step: stays"
    torch.testing.assert_close(net(x), before)


@pytest.mark.parametrize("name", ["dcgan", "vae", "ae"])
def test_models_have_them(name: str) -> None:
    spec = zoo.DataSpec(Image(3, 16, 16), Label(2), name="pictures")
    networks = {"vae": ("encoder", "decoder"), "ae": ("encoder", "decoder")}.get(name, ())
    model = zoo.create_model(name, data=spec, **dict.fromkeys(networks, "conv"))
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[2:] != (1, 1)]
    assert kernels
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


def test_state_of_another_layout_is_turned() -> None:
    """Adam's one kernel goes wrong without it, which is the control."""

    def trained(weight_last: bool, state_last: bool, aligned: bool = True) -> torch.Tensor:
        torch.manual_seed(0)

        def laid(t: torch.Tensor, last: bool) -> torch.Tensor:
            return t.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

        weight = nn.Parameter(laid(torch.randn(8, 4, 3, 3), weight_last))
        weight.grad = laid(torch.randn(8, 4, 3, 3), weight_last)
        optimizer = torch.optim.Adam([weight], 0.01, fused=True)
        optimizer.state[weight] = {
            "step": torch.tensor(3.0),
            "exp_avg": laid(torch.randn(8, 4, 3, 3), state_last),
            "exp_avg_sq": laid(torch.rand(8, 4, 3, 3), state_last),
        }
        if aligned:
            match_state_layout(optimizer)
        optimizer.step()
        return weight.detach()

    want = trained(False, False)
    for weight_last, state_last in [(True, True), (True, False), (False, True)]:
        torch.testing.assert_close(trained(weight_last, state_last), want, rtol=0, atol=0)
    assert not torch.allclose(trained(True, False, aligned=False), want, atol=1e-3)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_forward_derivatives_of_group_norm_with_channels_last(device: str) -> None:
    norm = norm2d("group", 16).to(device)
    x, tangent = (torch.randn(2, 16, 4, 4, device=device).to(memory_format=torch.channels_last) for _ in range(2))
    found = torch.func.jvp(norm, (x,), (tangent,))[1]
    expected = torch.autograd.functional.jvp(norm, x.contiguous(), tangent.contiguous())[1]
    torch.testing.assert_close(found, expected)
