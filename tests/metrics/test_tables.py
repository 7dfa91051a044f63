"""Scores of tables against closed forms, with controls that must fail."""

import math

import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from tests.data.table.examples import COLUMNS
from zoo.metrics.pairwise import nearest
from zoo.metrics.tables import (
    column_shape,
    column_shapes,
    copied_rows,
    efficacy,
    membership_auc,
    pair_trend,
    pair_trends,
)

COLOUR, COUNT, _, SIZE = COLUMNS
GENERATOR = torch.Generator().manual_seed(0)


def normals(n: int, rho: float) -> torch.Tensor:
    z = torch.randn(n, 2, dtype=torch.float64, generator=GENERATOR)
    return torch.stack([z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]], 1)


def test_the_shape_of_numbers_is_the_kolmogorov_smirnov_distance() -> None:
    a, b = torch.randn(300, generator=GENERATOR).double(), torch.randn(400, generator=GENERATOR).double() + 0.5
    assert column_shape(a, b, COUNT) == pytest.approx(1 - ks_2samp(a.numpy(), b.numpy()).statistic)
    assert column_shape(a, a, COUNT) == 1
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert column_shape(u, u + 0.25, COUNT) == pytest.approx(0.75, abs=2e-3)
    gone = torch.where(torch.arange(1001) < 400, torch.nan, u)
    assert column_shape(u, gone.roll(1), SIZE) < 0.61, "missing values count"


def test_the_shape_of_categories_is_the_total_variation() -> None:
    a = torch.tensor([0, 0, 1, 2, math.nan]).double()
    b = torch.tensor([0, 1, 1, 1, math.nan]).double()
    assert column_shape(a, b, COLOUR) == pytest.approx(1 - 0.4)
    assert column_shape(a, a.nan_to_num(2), COLOUR) == pytest.approx(0.8)


def test_trends_of_numbers_are_correlations() -> None:
    strong, none = normals(20_000, 0.8), normals(20_000, 0.0)
    assert pair_trend(strong, none, (COUNT, SIZE)) == pytest.approx(0.6, abs=0.01)
    assert pair_trend(strong, normals(20_000, 0.8), (COUNT, SIZE)) > 0.99
    constant = torch.ones(50, 2, dtype=torch.float64)
    assert pair_trend(none, constant, (COUNT, SIZE)) == pytest.approx(1, abs=0.01)


def test_trends_with_a_category_are_joint_shares() -> None:
    """Equal columns against independent ones: the total variation of a diagonal and a uniform table."""
    u = torch.arange(9_000, dtype=torch.float64) / 9_000
    bins = (u * 3).floor()
    together = torch.stack([bins, bins], 1)
    apart = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).double()
    assert pair_trend(together, apart, (COLOUR, COLOUR)) == pytest.approx(1 / 3)
    mixed = torch.stack([bins, u], 1)
    shuffled = torch.stack([bins, u[torch.randperm(len(u), generator=GENERATOR)]], 1)
    assert pair_trend(mixed, mixed, (COLOUR, SIZE)) == 1
    assert pair_trend(mixed, shuffled, (COLOUR, SIZE)) < 0.5
    assert column_shapes(mixed, shuffled, (COLOUR, SIZE)) == [1, 1], "columns alone do not show it"
    assert pair_trends(mixed, mixed, (COLOUR, SIZE)) == [1]


def test_copies_are_exposed() -> None:
    train, held, fresh = (torch.randn(400, 5, generator=GENERATOR) for _ in range(3))
    copies = train[torch.randint(400, (400,), generator=GENERATOR)]
    assert copied_rows(copies.double(), train.double()) == 1
    assert copied_rows(fresh.double(), train.double()) == 0
    gone = train.double().masked_fill(train > 1, torch.nan)
    assert copied_rows(gone, gone) == 1, "missing cells are equal"
    covered = len({tuple(row) for row in copies.tolist()}) / 400
    attack = membership_auc(train, held, copies)
    assert attack == pytest.approx(0.5 + covered / 2, abs=4 * math.sqrt(1 / 1200))
    assert membership_auc(train, held, fresh) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 1200))
    distance = [-nearest(rows, fresh)[0] for rows in (train, held)]
    want = roc_auc_score([1] * 400 + [0] * 400, torch.cat(distance).numpy())
    assert membership_auc(train, held, fresh) == pytest.approx(want)
    assert membership_auc(train, train, copies) == 0.5, "ties count half"


def test_efficacy_follows_the_dependence_of_the_training_rows() -> None:
    x, test = normals(600, 0.9), normals(600, 0.9)
    assert efficacy(x, test, (COUNT, SIZE), 1) == pytest.approx(0.81, abs=0.1)
    shuffled = torch.stack([x[:, 0], x[torch.randperm(600, generator=GENERATOR), 1]], 1)
    assert efficacy(shuffled, test, (COUNT, SIZE), 1) < 0.1
    signs = torch.stack([x[:, 0], (x[:, 1] > 0).double()], 1)
    target = torch.stack([test[:, 0], (test[:, 1] > 0).double()], 1)
    best = 0.5 + math.asin(0.9) / math.pi  # of the sign of one number from that of the other
    assert efficacy(signs, target, (COUNT, COLOUR), 1) == pytest.approx(best, abs=0.06)
    assert efficacy(signs * 0, target, (COUNT, COLOUR), 1) == pytest.approx(0.5, abs=0.1)
