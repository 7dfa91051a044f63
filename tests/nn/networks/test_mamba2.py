"""Mamba 2: steps against the full pass, padding, rows and sizes. Logits of `transformers` are in tests/interop."""

import pytest
import torch

from zoo.core.errors import ConfigError
from zoo.nn.networks.mamba2 import Mamba2

V = 7


def build(seed: int = 0, **settings) -> Mamba2:
    torch.manual_seed(seed)
    net = Mamba2(V, V, 9, **{"d_model": 8, "n_layers": 2, "d_state": 4, "d_head": 4, "groups": 2, **settings})
    with torch.no_grad():
        for name, p in net.named_parameters():
            if not name.endswith("log_rate"):
                p.normal_(std=0.5)
    return net.eval()


def tokens(batch: int = 3, length: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_steps_equal_the_full_pass() -> None:
    net, rows = build(), tokens()
    full = net(rows)
    assert full.std() > 0.3
    for start in (1, 2, 4):  # shorter and longer than the convolution
        logits, state = net.prefill(rows[:, :start])
        torch.testing.assert_close(logits, full[:, start - 1], rtol=0, atol=1e-5)
        for t in range(start, 9):
            torch.testing.assert_close(net.step(rows[:, t], state), full[:, t], rtol=0, atol=1e-5)
    order = torch.tensor([2, 0, 0, 1])
    net.reorder(state, order)
    torch.testing.assert_close(net.step(rows[order, 9], state), full[order, 9], rtol=0, atol=1e-5)
    rest = net(rows[order, 10:], state)  # several tokens at once
    torch.testing.assert_close(rest, full[order, 10:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_is_never_read() -> None:
    net, rows, padding = build(), tokens(4, 8), torch.tensor([3, 0, 7, 1])
    logits, state = net.prefill(rows, padding)
    more = tokens(4, 1, seed=2)[:, 0]
    after = net.step(more, state)
    for row, skip in enumerate(padding.tolist()):
        alone, own = net.prefill(rows[row : row + 1, skip:])
        torch.testing.assert_close(logits[row], alone[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(after[row], net.step(more[row : row + 1], own)[0], rtol=0, atol=1e-5)
    naive = net.prefill(rows)[0]
    assert (naive - logits).abs()[[0, 2, 3]].amax(1).min() > 1e-3, "read, padding does change what follows"


@torch.no_grad()
def test_each_token_depends_on_earlier_ones_alone() -> None:
    net, row = build(), tokens(1, 10)
    before = net(row)
    for t in range(10):
        changed = row.clone()
        changed[0, t] = (changed[0, t] + 1) % V
        after = net(changed)
        torch.testing.assert_close(before[:, :t], after[:, :t], rtol=0, atol=1e-6)
        assert (before[:, t:] - after[:, t:]).abs().amax(2).min() > 1e-6


@torch.no_grad()
def test_rows_are_merged() -> None:
    net, rows = build(), tokens(2, 6)
    (_, one), (_, two) = net.prefill(rows[:1, :5]), net.prefill(rows[1:, :3])
    both = net.merge(one, two)
    found = net.step(torch.stack([rows[0, 5], rows[1, 3]]), both)
    torch.testing.assert_close(found[0], net(rows[:1])[0, 5], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1], net(rows[1:])[0, 3], rtol=0, atol=1e-5)


def test_every_weight_is_used() -> None:
    net = build(bias=True)
    net(tokens()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("settings", "message"), [({"d_head": 5}, r"^d_head=5: .* 16, .*Choose"), ({"groups": 3}, r"^groups=3: 4 heads")]
)
def test_sizes_that_do_not_divide_are_refused(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**settings)
