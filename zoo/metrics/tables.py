"""Scores of synthetic tables against real ones, on cells (N, C): NaN is a missing value.

All scores of shapes and pairs are 1 for equal distributions and at least 0.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.core.columns import Column
from zoo.metrics.pairwise import nearest

BINS = 10  # of a number beside a category
Array = NDArray[np.float64]


def column_shape(real: Tensor, fake: Tensor, column: Column) -> float:
    """Similarity of one column (N,) and (M,): one minus the Kolmogorov-Smirnov distance, or the total variation.

    Numbers: the largest difference of the two distribution functions of the given values, or of the shares of missing
    ones if that is larger. Categories: half the sum of the differences of all shares, with those of missing values.
    """
    if column.kind == "category":
        return 1 - total_variation(codes_of(real, column), codes_of(fake, column))
    gap = abs(float(real.isnan().double().mean() - fake.isnan().double().mean()))
    a, b = (np.sort(x[~x.isnan()].numpy()) for x in (real, fake))
    if not len(a) or not len(b):
        return 1 - gap
    points = np.concatenate([a, b])
    distance = np.abs(share_below(a, points) - share_below(b, points)).max()
    return 1 - max(float(distance), gap)


def column_shapes(real: Tensor, fake: Tensor, columns: Sequence[Column]) -> list[float]:
    """`column_shape` of each column of cells (N, C) and (M, C)."""
    return [column_shape(real[:, i], fake[:, i], column) for i, column in enumerate(columns)]


def pair_trend(real: Tensor, fake: Tensor, columns: Sequence[Column]) -> float:
    """Similarity of the dependence of two columns, cells (N, 2) and (M, 2).

    Numbers: one minus half the difference of their correlations (Pearson), over rows in which both are given. A
    constant column counts as uncorrelated. Otherwise: one minus the total variation of the joint shares. Numbers are
    in `BINS` bins with equal shares of the real data, and missing values in one more.
    """
    if all(column.numeric for column in columns):
        return 1 - abs(correlation(real) - correlation(fake)) / 2
    joint = []
    edges = [None if c.kind == "category" else quantiles(real[:, i]) for i, c in enumerate(columns)]
    for cells in (real, fake):
        parts = [
            codes_of(cells[:, i], c) if edge is None else bins_of(cells[:, i], edge)
            for i, (c, edge) in enumerate(zip(columns, edges, strict=True))
        ]
        joint.append(parts[0] * (len(columns[1].categories) + BINS + 2) + parts[1])
    return 1 - total_variation(joint[0], joint[1])


def pair_trends(real: Tensor, fake: Tensor, columns: Sequence[Column]) -> list[float]:
    """`pair_trend` of all pairs of columns."""
    pairs = [(i, j) for i in range(len(columns)) for j in range(i)]
    return [pair_trend(real[:, [i, j]], fake[:, [i, j]], (columns[i], columns[j])) for i, j in pairs]


def codes_of(cells: Tensor, column: Column) -> NDArray[np.int64]:
    """Codes of categories (N,), a missing one after the last."""
    return cells.nan_to_num(len(column.categories)).long().numpy()


def quantiles(cells: Tensor) -> Array:
    """Inner borders of bins with equal shares."""
    given = cells[~cells.isnan()].numpy()
    return np.unique(np.quantile(given, np.arange(1, BINS) / BINS)) if len(given) else np.zeros(0)


def bins_of(cells: Tensor, edges: Array) -> NDArray[np.int64]:
    """Bins of numbers (N,), a missing one after the last."""
    found = np.searchsorted(edges, cells.nan_to_num(0).numpy(), "right")
    return np.where(cells.isnan().numpy(), len(edges) + 1, found)


def total_variation(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Half the sum of the differences of shares, of two samples (N,) and (M,) of codes from 0."""
    size = int(max(a.max(), b.max())) + 1
    p, q = (np.bincount(x, minlength=size) / len(x) for x in (a, b))
    return float(np.abs(p - q).sum() / 2)


def share_below(values: Array, points: Array) -> Array:
    """Share of sorted values that are at most each point."""
    return np.searchsorted(values, points, "right") / len(values)


def correlation(cells: Tensor) -> float:
    """Pearson correlation of two columns (N, 2) over the rows in which both are given; 0 if one is constant."""
    given = cells[~cells.isnan().any(1)]
    if len(given) < 2 or bool((given.std(0) == 0).any()):
        return 0.0
    return float(torch.corrcoef(given.T)[0, 1])


# -- privacy -----------------------------------------------------------------------------------------------------------


def copied_rows(fake: Tensor, train: Tensor) -> float:
    """Share of rows (N, C) with a row of the training data (M, C) that has the same cells."""
    known = set(map(tuple, train.nan_to_num(math.inf).tolist()))
    return float(np.mean([tuple(row) in known for row in fake.nan_to_num(math.inf).tolist()]))


def membership_auc(members: Tensor, others: Tensor, fake: Tensor) -> float:
    """Area under the curve of an attack that takes rows near a synthetic row for training data: 0.5 is private.

    It is the probability that a training row is nearer to its closest synthetic row than a held-out row is. Ties count
    half. Source: Hilprecht et al. 2019, Monte Carlo and reconstruction based membership inference attacks.

    Args:
        members: training data, encoded (N, F).
        others: held-out data of the same law (M, F).
        fake: synthetic rows (K, F).
    """
    near, far = (nearest(x.float(), fake.float())[0].double() for x in (members, others))
    far = far.sort().values
    less, equal = len(far) - torch.searchsorted(far, near, right=True), torch.searchsorted(far, near, right=True)
    equal = equal - torch.searchsorted(far, near)
    return float((less + equal / 2).sum() / (len(near) * len(far)))


# -- use -------------------------------------------------------------------------------------------------------------


def efficacy(train: Tensor, test: Tensor, columns: Sequence[Column], target: int, seed: int = 0) -> float:
    """Score on real test rows of a model of one column from the others, trained on the given rows.

    Boosted trees (scikit-learn's HistGradientBoosting): the accuracy for a category, R² for a number. Rows without the
    target are left out. One class alone is always predicted.

    Args:
        train: cells (N, C), synthetic or real.
        test: real cells (M, C).
        columns: of the cells.
        target: index of the column.
        seed: of the trees.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    others = [i for i in range(len(columns)) if i != target]
    (x, y), (x_test, y_test) = (
        (given[:, others].numpy(), given[:, target].numpy())
        for given in (rows[~rows[:, target].isnan()] for rows in (train, test))
    )
    category = columns[target].kind == "category"
    if len(np.unique(y)) < 2:
        found = np.full(len(y_test), y[0] if len(y) else 0.0)
        return float((found == y_test).mean()) if category else r_squared(y_test, found)
    coded = [columns[i].kind == "category" and len(columns[i].categories) < 255 for i in others]
    settings: dict[str, Any] = {"random_state": seed, "categorical_features": coded, "max_iter": 60}
    model = (HistGradientBoostingClassifier if category else HistGradientBoostingRegressor)(**settings).fit(x, y)
    found = model.predict(x_test)
    return float((found == y_test).mean()) if category else r_squared(y_test, found)


def r_squared(y: Array, found: Array) -> float:
    """One minus the mean squared error over the variance."""
    return float(1 - np.square(y - found).mean() / y.var())
