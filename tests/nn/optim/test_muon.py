"""Muon and AdamW against torch's own, and what a checkpoint needs."""

import copy

import pytest
import torch
from torch import nn

from zoo.nn.optim.lr_schedule import lr_factor
from zoo.nn.optim.muon import Muon, orthogonalize


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 5))


def split(net):
    return [net[0].weight, net[2].weight], [net[0].bias, net[2].bias, net[4].weight, net[4].bias]


def train(net, optimizers, steps, first=0, scheduler=None):
    for i in range(first, first + steps):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(i))
        loss = (net(x) - x[:, :5].sin()).square().mean()
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        for o in optimizers:
            o.step()
        if scheduler is not None:
            scheduler.step()
    return loss.item()


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (128, 32)])
def test_singular_values_come_close_to_one(shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(x, dtype=torch.float32))
    wide = torch.linalg.svdvals(x)
    assert wide.max() / wide.min() > 1.5
    # Five iterations leave a band; tiny singular values of square matrices take more of them.
    assert values.max() < 1.25
    assert values.median() > 0.68
    if shape[0] != shape[1]:
        assert values.min() > 0.65


def test_direction_is_kept():
    x = torch.randn(1, 12, 30, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    product = (orthogonalize(x, dtype=torch.float32) * (u @ vh)).sum() / 12
    assert product > 0.75


def test_update_equals_torch_muon(monkeypatch):
    """In float32: torch's own rounds to bfloat16, which changes an update by a fifth on some processors."""
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # as earlier versions write it
    ours, theirs = network(), network()
    matrices, others = split(ours)
    a = Muon(matrices, others, lr=0.02, adamw_lr=3e-3, weight_decay=0.1)
    matrices, others = split(theirs)
    b = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95)
    flat = [p for p in others if p.ndim != 2]
    square = [p for p in others if p.ndim == 2]
    groups = [{"params": square, "weight_decay": 0.1}, {"params": flat, "weight_decay": 0.0}]
    c = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    train(ours, [a], 1)
    train(theirs, [b, c], 1)
    for p, q, start in zip(ours.parameters(), theirs.parameters(), network().parameters(), strict=True):
        moved = (q - start).norm()
        assert moved > 0
        assert (p - q).norm() < 1e-5 * moved
    for _, q in zip(*map(split, (ours, theirs)), strict=True):
        assert len(q)


def test_adamw_equals_torch_adamw_exactly():
    ours, theirs = network(), network()
    a = Muon([], ours.parameters(), adamw_lr=3e-3, weight_decay=0.1)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim != 2], "weight_decay": 0.0},
    ]
    b = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    train(ours, [a], 20)
    train(theirs, [b], 20)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_resume_is_bit_equal():
    def made():
        net = network()
        optimizer = Muon(*split(net))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: lr_factor(s, 20, "linear", 3))
        return net, optimizer, scheduler

    net, optimizer, scheduler = made()
    train(net, [optimizer], 5, scheduler=scheduler)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    straight = train(net, [optimizer], 5, first=5, scheduler=scheduler)

    again, optimizer2, scheduler2 = made()
    for thing, state in zip((again, optimizer2, scheduler2), saved, strict=True):
        thing.load_state_dict(state)
    assert train(again, [optimizer2], 5, first=5, scheduler=scheduler2) == straight
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_state_survives_a_safe_load(tmp_path):
    net = network()
    optimizer = Muon(*split(net))
    train(net, [optimizer], 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = Muon(*split(network()))
    fresh.load_state_dict(state)
    assert fresh.param_groups[0]["muon"]
    assert not fresh.param_groups[1]["muon"]


def test_parameters_without_gradient_stay():
    net = network()
    optimizer = Muon(*split(net), weight_decay=0.5)
    before = copy.deepcopy(net.state_dict())
    optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_it_learns():
    net = network()
    first = train(net, [Muon(*split(net))], 1)
    assert train(net, [Muon(*split(net))], 150) < first / 10
