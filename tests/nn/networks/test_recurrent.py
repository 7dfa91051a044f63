"""Recurrent networks against cells written by hand, and steps against the full pass."""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.nn.networks.recurrent import GRU, LSTM, RNN, LockedDropout
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.beam_search import beam_search
from zoo.nn.samplers.sampling_params import SamplingParams

V = 7
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def build(cell="lstm", seed=0, **settings):
    torch.manual_seed(seed)
    net = CELLS[cell](V, V, 9, **{"d_model": 6, "n_layers": 2, "residual": False, **settings})
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.7)
    return net.eval()


def tokens(batch=3, length=9, seed=1):
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


def by_hand(net, cell, row):
    """Logits (T, V) of one row in double precision, one token, one layer and one gate after another."""
    size, out = net.d_model, []
    state = [(torch.zeros(size).double(), torch.zeros(size).double()) for _ in net.blocks]
    norm = (lambda v: v / (v.square().mean() + torch.finfo(v.dtype).eps).sqrt()) if net.residual else (lambda v: v)
    for token in row.tolist():
        x = net.embedding.weight[token]
        for i, layer in enumerate(net.blocks):
            (h, c), read = state[i], norm(x)
            into, back = layer.weight_ih_l0 @ read + layer.bias_ih_l0, layer.weight_hh_l0 @ h + layer.bias_hh_l0
            if cell == "rnn":
                h = torch.tanh(into + back)
            elif cell == "lstm":  # Hochreiter & Schmidhuber 1997 with forget gates (Gers et al. 2000)
                enter, forget, new, leave = (into + back).split(size)
                c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
                h = leave.sigmoid() * c.tanh()
            else:  # Cho et al. 2014, the reset gate on the product, as cuDNN has it
                reset, keep = ((into + back)[i * size : (i + 1) * size].sigmoid() for i in (0, 1))
                new = torch.tanh(into[2 * size :] + reset * back[2 * size :])
                h = keep * h + (1 - keep) * new
            state[i] = h, c
            x = x + h if net.residual else h
        out.append(net.embedding.weight @ norm(x) if net.head is None else net.head.weight @ norm(x))
    return torch.stack(out)


@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_cells_and_gradients_equal_those_written_by_hand(cell, residual, tie_weights):
    net, row = build(cell, residual=residual, tie_weights=tie_weights).double(), tokens(1, 8)
    names, parameters = zip(*net.named_parameters(), strict=True)
    costs = [F.cross_entropy(logits[:-1], row[0, 1:]) for logits in (net(row)[0], by_hand(net, cell, row[0]))]
    assert costs[0].item() == pytest.approx(costs[1].item(), rel=1e-12)
    one, two = (torch.autograd.grad(cost, parameters) for cost in costs)
    for name, a, b in zip(names, one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)
        assert a.abs().max() > 0, name


@pytest.mark.parametrize("cell", CELLS)
def test_each_token_depends_on_earlier_ones_alone(cell):
    net, row = build(cell), tokens(1, 10)
    with torch.no_grad():
        before = net(row)
        for t in range(10):
            changed = row.clone()
            changed[0, t] = (changed[0, t] + 1) % V
            after = net(changed)
            assert torch.equal(before[:, :t], after[:, :t])
            assert not torch.equal(before[:, -1], after[:, -1]), "no context ends what a state remembers"


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_steps_equal_the_full_pass(cell):
    net, rows = build(cell), tokens(3, 12)
    full = net(rows)
    assert full.std() > 0.3
    logits, state = net.prefill(rows[:, :4])
    torch.testing.assert_close(logits, full[:, 3], rtol=0, atol=1e-6)
    for t in range(4, 9):
        torch.testing.assert_close(net.step(rows[:, t], state), full[:, t], rtol=0, atol=1e-6)
    net.reorder(state, torch.tensor([2, 0, 0, 1]))
    torch.testing.assert_close(net.step(rows[[2, 0, 0, 1], 9], state), full[[2, 0, 0, 1], 9], rtol=0, atol=1e-6)
    rest = net(rows[[2, 0, 0, 1], 10:], state)  # several tokens at once
    torch.testing.assert_close(rest, full[[2, 0, 0, 1], 10:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_padding_is_never_read(cell):
    net, rows, padding = build(cell), tokens(4, 8), torch.tensor([3, 0, 7, 1])
    logits, state = net.prefill(rows, padding)
    more = tokens(4, 1, seed=2)[:, 0]
    after = net.step(more, state)
    for b, skip in enumerate(padding.tolist()):
        alone, own = net.prefill(rows[b : b + 1, skip:])
        torch.testing.assert_close(logits[b], alone[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(after[b], net.step(more[b : b + 1], own)[0], rtol=0, atol=1e-6)
    naive = net.prefill(rows)[0]
    assert (naive - logits).abs()[[0, 2, 3]].amax(1).min() > 1e-3, "read, padding does change what follows"


class Counted:
    """Steps that count how many tokens they read, each time."""

    def __init__(self, net):
        self.net, self.context, self.read = net, net.context, []
        self.reorder = net.reorder

    def prefill(self, rows, padding=None):
        self.read.append(rows.shape[1])
        return self.net.prefill(rows, padding)

    def step(self, row, state):
        self.read.append(1)
        return self.net.step(row, state)


def test_nothing_is_read_twice_however_long_the_text():
    net = build()
    steps = Counted(net)
    written, scores = next(sample_tokens(steps, [[1, 2, 3], [4]], SamplingParams(temperature=0), block_size=200))
    assert steps.read == [3] + [1] * 199
    with torch.no_grad():
        log_p = net(torch.cat([torch.tensor([[1, 2, 3]]), written[:1]], 1)).log_softmax(-1)[0, 2:-1]
    assert torch.equal(log_p.argmax(1), written[0])
    torch.testing.assert_close(log_p.gather(1, written[0][:, None])[:, 0], scores[0], rtol=0, atol=1e-5)


def test_a_wide_beam_finds_the_likeliest_text():
    net = build(residual=True)
    pieces = [b"a", b"b", b"c", b"d", b"e", b"f", b""]
    found = beam_search(net, [0], pieces, None, beams=V**2, limit=3)
    every = torch.cartesian_prod(*[torch.arange(V)] * 3)
    with torch.no_grad():
        rows = torch.cat([torch.zeros(len(every), 1, dtype=torch.long), every], 1)
        worth = net(rows)[:, :-1].log_softmax(-1).gather(2, every[..., None]).sum((1, 2))
    assert found.tokens == every[worth.argmax()].tolist()
    assert found.log_prob == pytest.approx(worth.max().item(), abs=1e-5)


def test_a_locked_mask_is_one_for_all_tokens_of_a_row():
    drop, x = LockedDropout(0.4), torch.ones(200, 5, 50)
    y = drop(x)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert not torch.equal(y[0], y[1])
    assert sorted(set(y.flatten().tolist())) == pytest.approx([0, 1 / 0.6])
    assert (y == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("residual", [False, True])
def test_it_begins_knowing_nothing(residual):
    for cell in CELLS:
        net = CELLS[cell](65, 65, 33, d_model=64, n_layers=2, residual=residual)
        rows = torch.randint(65, (8, 33))
        cost = F.cross_entropy(net(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).item()
        assert cost == pytest.approx(math.log(65), rel=0.05)
    gate = net.blocks[0].weight_hh_l0[:64]
    torch.testing.assert_close(gate.T @ gate, torch.eye(64), rtol=0, atol=1e-5)
