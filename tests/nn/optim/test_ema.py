"""The averaged network: half-life, buffers, spectral normalisation, checkpoint."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.nn.optim.ema import EMA


def constant(value):
    net = nn.Linear(3, 2)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(value)
    return net


@pytest.mark.parametrize("batch", [16, 256])
def test_half_way_after_exactly_one_half_life(batch):
    ema = EMA(constant(0.0), half_life=5120, ramp_up=0)
    target = constant(1.0)
    for _ in range(5120 // batch):
        ema.update(target, batch)
    for p in ema.average.parameters():
        torch.testing.assert_close(p, torch.full_like(p, 0.5), rtol=0, atol=1e-5)


def test_ramp_up_forgets_the_first_weights():
    slow, quick = EMA(constant(0.0), 1e6, ramp_up=0), EMA(constant(0.0), 1e6, ramp_up=0.05)
    for ema in (slow, quick):
        for _ in range(20):
            ema.update(constant(1.0), 64)
    assert float(slow.average.bias[0]) < 0.01
    assert float(quick.average.bias[0]) > 0.999


def test_half_life_zero_is_the_network_itself():
    net = nn.Linear(3, 2)
    ema = EMA(constant(0.0), half_life=0)
    ema.update(net, 8)
    assert torch.equal(ema(torch.ones(1, 3)), net(torch.ones(1, 3)))


def test_buffers_are_copied_and_parameters_are_not():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = EMA(net, half_life=1e9, ramp_up=0)
    for _ in range(40):
        net(torch.randn(16, 3) + 5)
        ema.update(net, 16)
    assert ema.average[1].num_batches_tracked == 40  # an average would have truncated it
    assert torch.equal(ema.average[1].running_mean, net[1].running_mean)


def test_always_in_evaluation_mode_and_without_gradients():
    ema = EMA(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 100)
    parent = nn.ModuleList([ema])
    parent.train()
    assert not ema.training
    assert not ema.average[1].training
    assert not any(p.requires_grad for p in ema.parameters())


def test_the_network_is_left_alone():
    net = nn.Linear(3, 2)
    before = copy.deepcopy(net.state_dict())
    ema = EMA(net, 10)
    ema.update(constant(1.0), 10)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_spectral_norm_of_the_average_is_one():
    torch.manual_seed(0)
    net = nn.Sequential(spectral_norm(nn.Linear(24, 32)), nn.ReLU(), spectral_norm(nn.Linear(32, 24)))
    ema = EMA(net, half_life=400)
    raw = copy.deepcopy(ema)  # the negative control: the live network's singular vectors
    raw._normalise = lambda: [m.copy_(n) for m, n in zip(raw.average.buffers(), net.buffers(), strict=True)]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    target = torch.randn(24, 24) + 3 * torch.eye(24)[:, :1] / 2  # with one leading singular value
    for _ in range(120):
        x = torch.randn(16, 24)
        loss = (net(x) - x @ target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(net, 16)
        raw.update(net, 16)

    def error(network):
        return max(abs(float(torch.linalg.svdvals(network[i].weight.detach())[0]) - 1) for i in (0, 2))

    for _ in range(100):  # power iterations without training
        net(torch.randn(2, 24))
    assert error(net.eval()) < 0.01
    assert error(ema.average) < 0.01
    assert error(raw.average) > 0.01


def test_state_dict_carries_the_average_and_the_clock():
    first, second = EMA(constant(0.0), 100), EMA(constant(0.0), 100)
    first.update(constant(1.0), 10)
    second.load_state_dict(first.state_dict())
    assert second.seen == 10
    for ema in (first, second):
        ema.update(constant(3.0), 10)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
