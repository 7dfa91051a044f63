"""Scores of columns and pairs are those of SDMetrics, where both have one definition. Checked with version 0.32.0.

SDMetrics needs pandas before 3. Pairs of a number and a category are not compared, because they depend on bins.
"""

import pytest
import torch

from zoo.core.columns import Column
from zoo.metrics.tables import column_shape, pair_trend

single = pytest.importorskip("sdmetrics.single_column", reason="SDMetrics is not installed")
pairs = pytest.importorskip("sdmetrics.column_pairs", reason="SDMetrics is not installed")
pandas = pytest.importorskip("pandas")

NUMBER = Column("n", "number", knots=(0, 1), scores=(0, 1))
CATEGORIES = tuple("abcd")
CATEGORY = Column("c", "category", CATEGORIES, missing=True)


def sample(seed: int, n: int) -> torch.Tensor:
    """Cells (n, 4): two dependent numbers, and two dependent categories."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, generator=generator, dtype=torch.float64) + 0.2 * seed
    b = (0.5 + 0.1 * seed) * a + torch.randn(n, generator=generator, dtype=torch.float64)
    return torch.stack([a, b, (a.abs() + 0.1 * seed).floor().clamp(max=3), (b.abs()).floor().clamp(max=3)], 1)


def frame(cells: torch.Tensor, columns: list[int]) -> "pandas.DataFrame":
    """Cells as SDMetrics reads them."""
    found = {}
    for i in columns:
        values = cells[:, i].tolist()
        found[str(i)] = values if i < 2 else [None if v != v else CATEGORIES[int(v)] for v in values]
    return pandas.DataFrame(found)


REAL, FAKE = sample(0, 400), sample(2, 300)


def test_shapes_are_theirs() -> None:
    for i, column, theirs in ((0, NUMBER, single.KSComplement), (2, CATEGORY, single.TVComplement)):
        expected = theirs.compute(frame(REAL, [i])[str(i)], frame(FAKE, [i])[str(i)])
        assert 0.3 < expected < 0.99
        assert column_shape(REAL[:, i], FAKE[:, i], column) == pytest.approx(expected, abs=1e-9)
        assert column_shape(REAL[:, i], FAKE[:150, i], column) != pytest.approx(expected, abs=1e-4)


def test_trends_are_theirs() -> None:
    for i, column, theirs in ((0, NUMBER, pairs.CorrelationSimilarity), (2, CATEGORY, pairs.ContingencySimilarity)):
        both = [i, i + 1]
        expected = theirs.compute(frame(REAL, both), frame(FAKE, both))
        assert 0.3 < expected < 0.99
        assert pair_trend(REAL[:, both], FAKE[:, both], (column, column)) == pytest.approx(expected, abs=1e-9)
        assert pair_trend(REAL[:, both], FAKE[:150, both], (column, column)) != pytest.approx(expected, abs=1e-4)
