"""The Chow-Liu tree against enumeration: of all rows, of all trees, and of all conditional distributions."""

import itertools
import math

import numpy as np
import pytest
import torch

import zoo
from tests.data.table.examples import SPEC, rows
from zoo.core.columns import Column, write_columns
from zoo.core.errors import ZooError
from zoo.core.spaces import Table
from zoo.data.loader import make_generator
from zoo.models.baselines.chow_liu import ChowLiu, best_tree, bin_edges, mutual_information
from zoo.nn.blocks.table_codec import TableCodec

GRID = {"knots": (-0.5, 2.5, 5.5, 8.5), "scores": (-2.5, -0.4, 0.6, 2.5)}
COLUMNS = (
    Column("a", "category", ("x", "y", "z"), missing=True),
    Column("b", "number", high=8.0, step=1.0, **GRID),
    Column("c", "category", ("no", "yes")),
    Column("d", "number", missing=True, low=3.0, high=7.0, step=0.5, decimals=1, **GRID),
)
VALUES = ((0, 1, 2, math.nan), range(9), (0, 1), (*(3 + i / 2 for i in range(9)), math.nan))
EVERY = torch.tensor(list(itertools.product(*VALUES)), dtype=torch.float64)  # (720, 4)


def tree(columns=COLUMNS, **settings):
    return ChowLiu(zoo.DataSpec(Table(write_columns(columns)), name="rows"), **settings)


def linked(n=400, seed=0):
    """Cells (n, 4) in which d follows b, c follows b, and a follows c, with noise."""
    u = torch.rand(n, 6, dtype=torch.float64, generator=make_generator(seed))
    b = (u[:, 0] * 9).floor()
    c = ((b > 4) ^ (u[:, 1] < 0.1)).double()
    d = 3 + ((b + (u[:, 2] * 3).floor()).clamp(max=8)) / 2
    a = (c + (u[:, 3] < 0.3)).clamp(max=2)
    a[u[:, 4] < 0.1], d[u[:, 5] < 0.15] = math.nan, math.nan
    return torch.stack([a, b, c, d], 1)


def fitted(**settings):
    model = tree(**settings)
    model.fit(model.codec.encode(linked()))
    return model


def shares_of_all(model):
    return model.log_prob(model.codec.encode(EVERY).double()).exp()


@pytest.mark.parametrize("n_bins", [1, 3, 20])
def test_probabilities_of_all_rows_sum_to_one(n_bins):
    before = tree(n_bins=n_bins)
    assert shares_of_all(before).sum().item() == pytest.approx(1, abs=1e-6)
    model = fitted(n_bins=n_bins)
    shares = shares_of_all(model)
    assert shares.sum().item() == pytest.approx(1, abs=1e-6)
    assert (shares > 0).all()
    model.table[1, :, 0] += 0.1  # negative control: a table that is not normalised
    assert abs(shares_of_all(model).sum().item() - 1) > 1e-3


def test_a_real_number_has_a_density_that_integrates_to_one():
    real = Column("r", "number", low=-3.0, high=5.0, decimals=3, knots=(0.0, 0.5, 1.0), scores=(-2.0, 0.5, 2.0))
    model = tree((real, COLUMNS[2]))
    places = torch.linspace(-15, 20, 100_001, dtype=torch.float64)
    cells = torch.cartesian_prod(places, torch.arange(2.0).double())
    x = model.codec.encode(cells).double()
    model.fit(x[(cells[:, 0] > -1).nonzero()[:, 0]][::13])
    nats = model.log_prob(x).view(-1, 2)
    assert torch.trapezoid(nats.exp().sum(1), places).item() == pytest.approx(1, abs=2e-4)
    assert model.likelihood_kind == "continuous"


def all_trees(count):
    """Parents of all trees on `count` columns with root 0, from Pruefer's sequences."""
    for word in itertools.product(range(count), repeat=count - 2):
        degree, edges, rest = [word.count(v) + 1 for v in range(count)], [], list(word)
        for v in rest:
            leaf = next(u for u in range(count) if degree[u] == 1)
            edges.append({leaf, v})
            degree[leaf] -= 1
            degree[v] -= 1
        edges.append({v for v in range(count) if degree[v] == 1})
        parent, known = [-1] * count, [0]
        for v in known:
            for edge in [e for e in edges if v in e]:
                (other,) = edge - {v}
                if other not in known:
                    parent[other] = v
                    known.append(other)
        yield parent


def log_likelihood(states, parent):
    """Nats of states (N, C) by the most likely tables of a tree: relative frequencies, counted one by one."""
    total = 0.0
    for c, p in enumerate(parent):
        for row in states:
            same = states if p < 0 else states[states[:, p] == row[p]]
            total += math.log((same[:, c] == row[c]).mean())
    return total


def test_the_tree_is_the_best_of_all_sixteen():
    model = fitted(n_bins=3, pseudo_count=1e-9)
    x = model.codec.encode(linked()).double()
    states = model.states(x).numpy()
    found = {tuple(parent): log_likelihood(states, parent) for parent in all_trees(4)}
    assert len(found) == 16
    assert max(found, key=found.get) == tuple(model.parent.tolist())
    best, second = sorted(found.values(), reverse=True)[:2]
    assert best > second + 1
    nats = model.log_prob(x).sum().item() - model.within(x, model.states(x)).sum().item()
    assert nats == pytest.approx(best, abs=1e-3), "its likelihood is that of counting"
    parent, _ = best_tree(-mutual_information(model.pair_shares(x)))
    assert found[tuple(parent)] < best - 100, "negative control: the tree of least information"
    assert {frozenset((c, p)) for c, p in enumerate(model.parent.tolist()) if p >= 0} == {
        frozenset(pair) for pair in ((0, 2), (1, 2), (1, 3))
    }, "the law of the rows"


def test_mutual_information_is_that_of_scikit_learn():
    from sklearn.metrics import mutual_info_score

    model = fitted(n_bins=4, pseudo_count=1e-9)
    x = model.codec.encode(linked())
    states, found = model.states(x).numpy(), mutual_information(model.pair_shares(x))
    want = [[mutual_info_score(states[:, i], states[:, j]) for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(found.numpy(), want, atol=1e-6)


def frequencies(model, x):
    """Counts of each of the possible rows among x, (720,)."""
    cells = model.codec.decode(x).nan_to_num(-1)
    places = {tuple(row): i for i, row in enumerate(EVERY.nan_to_num(-1).tolist())}
    counts = torch.zeros(len(EVERY), dtype=torch.float64)
    for row in cells.tolist():
        counts[places[tuple(row)]] += 1
    return counts


def chi_square(counts, shares):
    """Chi-square per degree of freedom, over rows that are expected at least five times."""
    expected = shares / shares.sum() * counts.sum()
    often = expected >= 5
    return float(((counts - expected).square() / expected.clamp(min=1e-9))[often].sum() / (often.sum() - 1))


def test_samples_have_the_probabilities_of_the_rows():
    model = fitted(n_bins=4)
    counts, shares = frequencies(model, model.sample(20_000, seed=0)), shares_of_all(model)
    assert (shares * 20_000 >= 5).sum() > 50
    assert chi_square(counts, shares) < 1.4
    assert chi_square(counts, shares_of_all(tree())) > 10, "negative control: independent columns"


@pytest.mark.parametrize("given", [(1,), (0, 3), (2,), (0, 1, 2)])
def test_filled_in_cells_have_the_conditional_distribution(given):
    model = fitted(n_bins=4)
    row = linked(50, seed=3)[7:8]
    mask = torch.ones(1, model.codec.width, dtype=torch.bool)
    for block in model.codec.blocks:
        if block.column in given:
            mask[:, block.places] = False
    x = model.codec.encode(row).repeat(8_000, 1)
    found = model.inpaint(x, mask, seed=0)
    assert torch.equal(found[:, ~mask[0]], x[:, ~mask[0]])
    fits = (EVERY.nan_to_num(-1)[:, given] == row.nan_to_num(-1)[:, given]).all(1)
    shares = shares_of_all(model)
    counts = frequencies(model, found)
    assert counts[~fits].sum() == 0
    assert chi_square(counts, shares * fits) < 1.8
    alone = shares_of_all(tree()) * fits  # negative control: the given cells say nothing
    assert chi_square(counts, alone) > 5


def test_bins_are_whole_cells_with_equal_shares():
    assert bin_edges(COLUMNS[1], 20) == [i + 0.5 for i in range(8)]
    assert all(edge % 1 == 0.5 for edge in bin_edges(COLUMNS[1], 3))
    real = Column("r", "number", low=0.0, high=1.0, knots=(0.0, 0.5, 1.0), scores=(-2.0, 0.0, 2.0))
    assert bin_edges(real, 2) == [0.5]
    assert bin_edges(real, 1) == []


def test_given_cells_are_kept_and_large_tables_are_refused():
    model = ChowLiu(SPEC)
    model.fit(rows(300))
    drawn = TableCodec(SPEC.x).decode(model.sample(40, seed=0, where="colour=red, size=NA"))
    assert (drawn[:, 0] == 1).all()
    assert drawn[:, 2].isnan().all()
    assert len(set(drawn[:, 1].tolist())) > 1
    wide = Column("word", "category", tuple(map(str, range(6_000))))
    with pytest.raises(ZooError, match="need too large tables"):
        tree((wide,))
