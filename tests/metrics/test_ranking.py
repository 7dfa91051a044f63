"""NDCG and recall of rankings against sums by hand and enumeration, and what an oracle and chance reach."""

import itertools
import math

import pytest
import torch

from zoo.metrics.ranking import found_at, found_by_chance, ndcg, rank_of, recall


def by_hand(ranking: list[int], wanted: set[int], k: int) -> tuple[float, float]:
    """NDCG and recall of a ranking of items, best first."""
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(ranking[:k]) if item in wanted)
    best = sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
    return gain / best, len(wanted & set(ranking[:k])) / min(k, len(wanted))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_all_rankings_of_five_items(k: int) -> None:
    wanted = {0, 3}
    relevant = torch.tensor([[1.0, 0, 0, 1, 0]])
    found = []
    for ranking in itertools.permutations(range(5)):
        scores = torch.zeros(1, 5)
        scores[0, list(ranking)] = torch.arange(5, 0, -1).float()
        both = float(ndcg(scores, relevant, k)), float(recall(scores, relevant, k))
        assert both == pytest.approx(by_hand(list(ranking), wanted, k))
        found.append(both)
    assert max(found) == (1, 1)
    chance = sum(value for _, value in found) / len(found)
    assert chance == pytest.approx(2 * min(k, 5) / 5 / min(k, 2)), "the mean over all rankings"


@pytest.mark.parametrize(("wanted", "k"), [({2}, 1), ({0, 3}, 2), ({0, 3}, 4), ({1, 2, 4}, 2), ({1}, 9)])
def test_a_random_order_finds_as_often_as_all_orders_do(wanted: set[int], k: int) -> None:
    relevant = torch.tensor([[float(item in wanted) for item in range(5)]])
    scores = torch.tensor(list(itertools.permutations(range(5)))).float()  # (120, 5)
    found = found_at(scores, relevant.expand(120, 5), k)
    assert float(found.mean()) == pytest.approx(float(found_by_chance(relevant.sum(1), 5, k)))
    if k > 1:
        replaced = 1 - (1 - len(wanted) / 5) ** min(k, 5)
        assert float(found.mean()) > replaced + 0.03, "the control: items drawn with replacement"


def test_the_place_counts_the_items_that_are_as_good() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.5, 0.5, 0.5]])
    assert rank_of(scores, torch.tensor([2, 0])).tolist() == [2, 3]


def test_a_worse_ranking_has_a_lower_value_and_users_are_separate() -> None:
    scores = torch.tensor([[3.0, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0]])
    relevant = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    values = ndcg(scores, relevant, 3)
    assert values[0] == 1
    assert values[1] < 1
    assert values[2].isnan(), "nothing to find"
    assert ndcg(-scores, relevant, 3)[0] < values[0]
    seen = scores.clone()
    seen[0, 0] = -torch.inf
    assert recall(seen, relevant, 1)[0] == 1, "the next item moves up"
