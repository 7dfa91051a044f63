"""Precision, recall, density and coverage against brute force, their nulls, and failures they must tell apart."""

import numpy as np
import pytest
import torch

from zoo.metrics import pairwise
from zoo.metrics.prdc import coverage_null, prdc


def brute_force(real, fake, k):
    def apart(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radius(a):
        d = apart(a, a)
        return np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(d)])

    r, f, d = radius(real), radius(fake), apart(real, fake)
    inside = d < r[:, None]
    return {
        "precision": inside.any(0).mean(),
        "recall": (d < f[None]).any(1).mean(),
        "density": inside.sum(0).mean() / k,
        "coverage": inside.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(80, 80, 5), (70, 110, 3), (110, 70, 1)])
def test_agrees_with_brute_force(n, m, k, monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK_PAIRS", 1000)
    real, fake = torch.randn(n, 4) + 10, torch.randn(m, 4) * 1.3 + 10.2
    assert prdc(real, fake, k) == pytest.approx(brute_force(real.double().numpy(), fake.double().numpy(), k))


def test_by_hand():
    """k = 1 on a line: real radii are 1, 1, 2; fake ones .2, .2, 9.4. The last ball contains real points 1 and 3."""
    real, fake = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.4], [0.6], [10.0]])
    expected = {"precision": 2 / 3, "recall": 2 / 3, "density": 4 / 3, "coverage": 2 / 3}
    assert prdc(real, fake, 1) == pytest.approx(expected)


def test_copies_are_on_spheres_but_not_inside():
    """Each ball holds its centre and the k - 1 nearest others: density 1, not 1 + 1/k, however it is rounded."""
    real = torch.randn(300, 20) + 5
    shuffled = real[torch.randperm(300)]
    assert prdc(real, shuffled) == {"precision": 1, "recall": 1, "density": pytest.approx(1), "coverage": 1}


@pytest.mark.parametrize(("n", "m"), [(100, 100), (60, 150), (150, 60)])
def test_nulls(n, m):
    """Means over repetitions with equal distributions: density 1, and coverage in closed form."""
    runs = [prdc(torch.randn(n, 3), torch.randn(m, 3)) for _ in range(150)]
    for name, expected in {"density": 1.0, "coverage": coverage_null(n, m)}.items():
        values = torch.tensor([run[name] for run in runs])
        assert abs(values.mean() - expected) < 4 * values.std() / 150**0.5


def test_null_of_coverage():
    assert coverage_null(10_000, 10_000, 5) == pytest.approx(1 - 2**-5, abs=1e-4)
    assert coverage_null(2, 1, 1) == pytest.approx(0.5)  # one real, one fake: either may be nearer
    assert coverage_null(1000, 3000, 2) == pytest.approx(1 - (1 / 4) ** 2, abs=1e-3)


def clusters(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = 30 * torch.eye(4, 8)
    return torch.cat([centres[i] + torch.randn(n, 8, generator=generator) for i, n in enumerate(sizes)])


def test_a_missing_cluster_costs_recall_and_coverage_but_not_precision():
    real = clusters([200] * 4, 0)
    whole, part = prdc(real, clusters([200] * 4, 1)), prdc(real, clusters([267, 267, 266, 0], 2))
    assert part["precision"] > whole["precision"] - 0.05
    assert part["recall"] < 0.75 < whole["recall"]
    assert part["coverage"] < 0.76 < 0.93 < whole["coverage"]


def test_outliers_cost_precision_and_density_but_not_coverage():
    real, good = clusters([200] * 4, 0), clusters([200] * 4, 1)
    bad = torch.cat([good, good[:400] - 60])  # a third is nowhere near the data
    whole, part = prdc(real, good), prdc(real, bad)
    assert part["precision"] == pytest.approx(whole["precision"] * 2 / 3)
    assert part["density"] == pytest.approx(whole["density"] * 2 / 3)
    assert part["coverage"] == whole["coverage"]


def test_one_sample_again_and_again():
    real = torch.randn(200, 8)
    scores = prdc(real, real[:1].repeat(200, 1))
    assert scores["precision"] == 1
    assert scores["recall"] == 0
    assert scores["coverage"] < 0.2


def test_too_few_points():
    with pytest.raises(RuntimeError):
        prdc(torch.randn(5, 2), torch.randn(50, 2))
