"""Symmetrisation, extraction and counting of phrases against their definitions."""

import itertools
import math
from collections import Counter

import pytest
import torch

from zoo.nn.translation.phrases import (
    PhraseIndex,
    PhraseTable,
    discounted,
    extract_phrases,
    lexical_scores,
    orientations,
    spans,
    symmetrize,
)

G = torch.Generator


def matrix(steps, width, seed, share=0.3):
    return torch.rand(steps, width, generator=G().manual_seed(seed)) < share


def by_definition(links, size, longest):
    """All pairs of spans with a link inside, and none from inside to outside."""
    found, pairs = set(), [tuple(p) for p in links.nonzero().tolist()]
    for top, bottom in spans(size, longest).tolist():
        for left, right in spans(links.shape[1], longest).tolist():
            inside = [(j, i) for j, i in pairs if top <= j < bottom and left <= i < right]
            crossing = [(j, i) for j, i in pairs if (top <= j < bottom) != (left <= i < right)]
            if inside and not crossing:
                found.add((top, bottom, left, right))
    return found


@pytest.mark.parametrize("longest", [2, 5])
def test_extracted_phrases_are_those_of_the_definition(longest):
    links = torch.stack([matrix(5, 6, seed) for seed in range(40)])
    sizes = torch.arange(40) % 3 + 3
    links &= (torch.arange(5) < sizes[:, None])[..., None]
    found = extract_phrases(links, sizes, longest)
    for n in range(40):
        mine = {tuple(row[1:]) for row in found.tolist() if row[0] == n}
        assert mine == by_definition(links[n], int(sizes[n]), longest)
    assert len(found) > 30
    assert len(found) == len({tuple(row) for row in found.tolist()})
    diagonal = torch.eye(5, dtype=torch.bool)
    more = diagonal.clone()
    more[0, 4] = True  # control: one more link forbids most phrases
    assert len(by_definition(diagonal, 5, longest)) > len(by_definition(more, 5, longest))
    assert len(extract_phrases(more[None], torch.tensor([5]), longest)) == len(by_definition(more, 5, longest))


def test_symmetrisation_of_a_worked_example():
    """Intersection (0,0), (3,3); the diagonal neighbours grow, and a free pair far away is added at the end."""
    one = {(0, 0), (1, 1), (3, 3), (5, 6)}
    other = {(0, 0), (2, 1), (3, 3), (2, 2)}
    # (1,1) neighbours (0,0), and (2,2) neighbours (3,3). Then both words of (2,1) are taken.
    assert symmetrize(one, other) == {(0, 0), (1, 1), (2, 2), (3, 3), (5, 6)}
    assert symmetrize(one, other - {(2, 2)}) == {(0, 0), (1, 1), (2, 1), (3, 3), (5, 6)}, "now its target is free"
    assert symmetrize(one, set()) == {(0, 0), (1, 1), (3, 3), (5, 6)}
    assert symmetrize({(0, 0), (0, 5)}, {(0, 0)}) == {(0, 0)}, "a link is added at the end only if both words are free"


def test_symmetrisation_lies_between_intersection_and_union():
    for seed in range(50):
        one, other = ({tuple(p) for p in matrix(6, 6, 2 * seed + k, 0.2).nonzero().tolist()} for k in (0, 1))
        found = symmetrize(one, other)
        assert one & other <= found <= one | other
        targets, sources = {j for j, _ in found}, {i for _, i in found}
        assert all(j in targets or i in sources for j, i in one | other), "no free pair is left"


def test_orientation_depends_on_the_words_before():
    links = torch.zeros(1, 4, 5, dtype=torch.bool)
    links[0, 0, 1] = links[0, 1, 2] = links[0, 2, 0] = links[0, 3, 3] = True
    found = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 2, 2, 3], [0, 2, 3, 0, 1], [0, 3, 4, 3, 4], [0, 0, 2, 0, 3]])
    # source word 1 first: not the begin; 2 after 1: monotone; 0 after 2: neither; 3 after 0: neither; begin: monotone
    assert orientations(links, found).tolist() == [2, 0, 2, 2, 0]
    swapped = torch.zeros(1, 2, 2, dtype=torch.bool)
    swapped[0, 0, 1] = swapped[0, 1, 0] = True
    assert orientations(swapped, torch.tensor([[0, 1, 2, 0, 1]])).tolist() == [1]


def test_lexical_scores_are_relative_frequencies_of_links():
    x, y = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[2, 3, 4], [2, 2, -100]])
    links = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]])
    # word 0 links to 2, 3, 2; word 1 to 3, 2; NULL to 4
    expected = [[2 / 3, (1 / 3 + 1 / 2) / 2, 1.0], [2 / 3, 1 / 2, None]]
    found = lexical_scores(links, x, y, 5)
    for row, wanted in zip(found.exp().tolist(), expected, strict=True):
        for value, right in zip(row, wanted, strict=True):
            assert right is None or value == pytest.approx(right)


def test_index_finds_what_was_built_and_nothing_else():
    g = G().manual_seed(0)
    rows = torch.randint(0, 3, (60, 3), generator=g)
    rows[torch.arange(3) >= torch.randint(1, 4, (60, 1), generator=g)] = -1
    index = PhraseIndex(10, 3)
    numbers = index.build(rows)
    keys = {tuple(r) for r in rows.tolist()}
    by_number = {}
    for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
        assert by_number.setdefault(number, tuple(row)) == tuple(row)
    assert len(by_number) == len(keys)
    assert 0 <= min(by_number) <= max(by_number) < index.size
    absent = torch.tensor([[0, 5, -1], [2, 2, 9], [-1, -1, -1]])
    assert index(absent).tolist() == [-1, -1, -1]


def test_smoothed_frequencies_sum_to_one_over_all_partners():
    pairs = Counter({(0, 0): 3, (0, 1): 1, (1, 1): 1, (1, 2): 2, (2, 0): 1})
    f, e = (torch.tensor([pair[k] for pair in pairs]) for k in (0, 1))
    count = torch.tensor(list(pairs.values()))
    p = discounted(count, f, e)
    discount = 3 / (3 + 2)
    partners = torch.bincount(e) / len(e)
    for source in range(3):
        mine = f == source
        unseen = [other for other in range(3) if other not in e[mine].tolist()]
        missing = sum(discount * mine.sum() / count[mine].sum() * partners[u] for u in unseen)
        assert (p[mine].sum() + missing).item() == pytest.approx(1)
    assert p[0].item() == pytest.approx((3 - discount + discount * 2 * partners[0].item()) / 4)


def test_table_keeps_the_best_targets_of_each_source():
    sources = torch.tensor([[0, -1]] * 6 + [[1, 2]] * 2)
    targets = torch.tensor([[3, -1]] * 3 + [[4, -1]] * 2 + [[5, -1]] + [[4, 3]] * 2)
    table = PhraseTable(6, 2, options=2)
    lexical = torch.zeros(8, 2, dtype=torch.float64)
    lexical[0] = -1
    table.fit(sources, targets, lexical, torch.tensor([0, 0, 1, 2, 2, 0, 0, 0]))
    node = table.sources(torch.tensor([[0, -1], [1, 2], [1, -1]]))
    first = [range(int(table.first[n]), int(table.first[n + 1])) for n in node]
    assert [table.targets[list(rows)].tolist() for rows in first] == [[[3, -1], [4, -1]], [[4, 3]], []]
    assert table.scores[0, 2].item() == 0, "the highest of all occurrences"
    turns = table.orientation.exp()
    assert torch.allclose(turns.sum(1), torch.ones(3))
    assert turns[0].tolist() == pytest.approx([(2 + 0.5 * 5 / 8) / 3.5, (1 + 0.5 / 8) / 3.5, (0.5 * 2 / 8) / 3.5])


def test_one_word_phrases_of_a_diagonal():
    links = torch.eye(4, dtype=torch.bool)[None]
    assert len(extract_phrases(links, torch.tensor([4]), 4)) == 4 + 3 + 2 + 1
    assert math.comb(5, 2) == len(spans(4, 4))
    assert list(itertools.accumulate([4, 3, 2, 1]))[-1] == 10
