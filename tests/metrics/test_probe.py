"""Probes against brute force; labels without a relation to the vectors are found by chance alone."""

import math

import torch
from torch.nn import functional as F

from zoo.metrics.probe import knn_hits, linear_hits


def clusters(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    return 2 * F.one_hot(labels, 4) + torch.randn(n, 4, generator=generator), labels


def test_the_nearest_neighbours_vote_by_brute_force() -> None:
    known, labels = clusters(40, 0)
    x, y = clusters(60, 1)
    wanted = []
    for row, label in zip(x, y, strict=True):
        cosines = [float(F.cosine_similarity(row.double(), other.double(), dim=0)) for other in known]
        near = sorted(range(40), key=lambda i: -cosines[i])[:5]
        votes = [(sum(labels[i] == c for i in near), sum(cosines[i] for i in near if labels[i] == c)) for c in range(3)]
        wanted.append(float(max(range(3), key=lambda c: votes[c]) == label))
    found = knn_hits(known, labels, x, y)
    assert found.tolist() == wanted
    assert 0 < sum(wanted) < 60
    assert knn_hits(known, labels, x, y, 1000).shape == (60,), "all of them vote"


def test_a_linear_classifier_reads_linear_classes_and_no_others() -> None:
    known, labels = clusters(300, 0)
    x, y = clusters(300, 1)
    assert float(linear_hits(known, labels, 9 * F.one_hot(y, 4).float(), y).mean()) == 1
    assert float(linear_hits(known, labels, x, y).mean()) > 0.75
    shuffled = float(linear_hits(known, labels, x, y.roll(1)).mean())
    assert abs(shuffled - 1 / 3) < 4.5 * math.sqrt(2 / 9 / 300)
