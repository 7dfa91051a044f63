"""Autoregression over columns: exact probabilities, all orders, conditions."""

import itertools
import math

import pytest
import torch

import zoo
from tests.data.table.examples import COLUMNS, SPEC, rows
from zoo.core.columns import Column, write_columns
from zoo.core.spaces import Table
from zoo.data.batch import Batch
from zoo.models.autoregressive.table_autoregressive import TableAutoregressive
from zoo.nn.blocks.table_codec import TableCodec

SOME = Column("some", "number", missing=True, high=2.0, step=1.0, knots=(-0.5, 0.5, 2.5), scores=(-1.0, 0.0, 1.0))
DISCRETE = zoo.DataSpec(Table(write_columns((COLUMNS[0], COLUMNS[1], SOME))), name="rows")
EVERY = torch.tensor(list(itertools.product([0, 1, 2, math.nan], range(5), [0, 1, 2, math.nan])), dtype=torch.float64)


def model(spec: zoo.DataSpec = DISCRETE) -> TableAutoregressive:
    torch.manual_seed(0)
    made = TableAutoregressive(spec, n_components=2, encoder={"name": "mlp", "width": 16, "depth": 1})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


@torch.no_grad()
def test_probabilities_sum_to_one_and_are_those_of_samples() -> None:
    net, x = model(), TableCodec(DISCRETE.x).encode(EVERY)
    p = net.log_prob(x).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    n = 30_000
    drawn = net.sample(n, seed=0)
    match = (drawn[:, None] - x).abs().amax(2) < 1e-3
    assert (match.sum(1) == 1).all(), "samples are rows"
    likely = n * p > 5
    chi = ((match.sum(0) - n * p).square() / (n * p))[likely].sum().item()
    k = int(likely.sum())
    assert chi < k + 5 * math.sqrt(2 * k)
    wrong = (n * p).roll(1)
    assert ((match.sum(0) - wrong).square() / (n * p))[likely].sum().item() > 10 * k


@torch.no_grad()
def test_the_loss_is_the_mean_over_all_orders() -> None:
    net, x = model(), rows_of(4)
    blocks, total = net.n_blocks, 0.0
    orders = list(itertools.permutations(range(blocks)))
    for order in orders:
        for place, block in enumerate(order):
            visible = torch.zeros(len(x), blocks, dtype=torch.bool)
            visible[:, list(order[:place])] = True
            total -= net.likelihood.block_log_probs(net.params(x, visible), x)[:, block].mean().item() / len(orders)
    net.train()
    many = [net.loss(Batch(x.repeat(200, 1), torch.zeros(800)))["loss"].item() for _ in range(40)]
    found = torch.tensor(many)
    error = found.std().item() / math.sqrt(len(many))
    assert found.mean().item() == pytest.approx(total, abs=4 * error)
    assert error < 0.02 * total, "precise enough to see a wrong weight"
    exact = net.eval().loss(Batch(x, torch.zeros(4)))["loss"].item()
    assert exact == pytest.approx(-net.log_prob(x).mean().item(), rel=1e-6)
    assert abs(exact - total) > 5 * error, "one order differs from the mean of all"


def rows_of(n: int) -> torch.Tensor:
    return TableCodec(DISCRETE.x).encode(EVERY[:: len(EVERY) // n][:n])


@torch.no_grad()
def test_hidden_columns_do_not_matter() -> None:
    net, x = model(SPEC), rows(8)
    visible = torch.tensor([[True, False, True, False]]).expand(8, -1)
    other = TableCodec(SPEC.x).snap(torch.where(net.codec.spread(visible), x, torch.randn(8, *SPEC.shape)))
    other = torch.where(net.codec.spread(visible), x, other)
    assert not torch.equal(x, other)
    assert torch.equal(net.params(x, visible), net.params(other, visible))
    assert not torch.equal(net.params(x, ~visible), net.params(other, ~visible))


@torch.no_grad()
def test_filling_in_follows_the_conditional_distribution() -> None:
    """Of the last column, which is exact: the order of the columns ends with it."""
    net = model()
    one = TableCodec(DISCRETE.x).encode(EVERY[5:6])
    mask = torch.zeros(1, DISCRETE.size, dtype=torch.bool)
    mask[0, -1] = True
    found = TableCodec(DISCRETE.x).decode(net.inpaint(one.repeat(8_000, 1), mask, seed=0))
    same = EVERY[[i for i, row in enumerate(EVERY) if row[:2].nan_to_num(9).equal(EVERY[5][:2].nan_to_num(9))]]
    p = net.log_prob(TableCodec(DISCRETE.x).encode(same)).softmax(0)
    shares = torch.stack([(found[:, 2].nan_to_num(9) == v).float().mean() for v in same[:, 2].nan_to_num(9)])
    torch.testing.assert_close(shares, p, atol=0.02, rtol=0)
    assert torch.equal(found[:, :2].nan_to_num(9), EVERY[5:6, :2].nan_to_num(9).expand(8_000, -1))
    drawn = TableCodec(DISCRETE.x).decode(net.sample(30, seed=1, where="count=3"))
    assert (drawn[:, 1] == 3).all()
    assert len(set(drawn[:, 0].nan_to_num(9).tolist())) > 1
