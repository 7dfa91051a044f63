"""Span corruption: nothing is lost, and as much is taken out as is asked for."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.core.spaces import ABSENT
from zoo.nn.losses.span_corruption import corrupt_spans, random_partition

FIRST, END = 50, 49


def whole(source, target):
    """The text that a source and its target come from, by putting each span back in its sentinel's place."""
    spans, current = {}, []
    for token in target:
        if token >= FIRST:
            current = spans[token] = []
        elif token != END:
            current.append(token)
    text = []
    for token in source:
        text += spans.pop(token) if token >= FIRST else [token] if token != END else []
    assert not spans, "every span is asked for"
    return text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.01, 0.9), st.floats(1, 6), st.integers(0, 99))
def test_source_and_target_give_the_text_back(lengths, share, mean, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(49, (len(lengths), max(lengths)), generator=generator)
    tokens = tokens.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], ABSENT)
    source, target = corrupt_spans(tokens, share, mean, FIRST, END, generator)
    for row, length in enumerate(lengths):
        x, y = (part[row][part[row] >= 0].tolist() for part in (source, target))
        assert x[-1] == y[-1] == END
        assert whole(x, y) == tokens[row, :length].tolist()
        taken = sum(token < END for token in y)
        assert taken == min(max(round(length * share), 1), length - 1)
        marks = [token for token in x if token >= FIRST]
        assert marks == [token for token in y if token >= FIRST] == [FIRST + i for i in range(len(marks))]
        assert len(marks) == min(max(round(taken / mean), 1), taken, length - taken)
        assert all(a < FIRST or b < FIRST for a, b in itertools.pairwise(x)), "something is kept between two spans"


def test_every_token_is_taken_out_as_often():
    """15 % of all places together; each place but the first, which is always kept, within binomial bounds."""
    n, length = 4000, 40
    tokens = torch.arange(length).expand(n, -1)
    source, _ = corrupt_spans(tokens, 0.15, 3.0, FIRST, END, torch.Generator().manual_seed(0))
    kept = torch.zeros(length).scatter_add_(0, source[(source >= 0) & (source < END)], torch.ones(n * (length - 6)))
    taken = 1 - kept / n  # 6 of 40 tokens
    assert taken.sum().item() == pytest.approx(6)
    assert taken[0] == 0
    assert taken[-1] == 1, "a text ends with a span"
    middle = taken[8:30]
    deviation = (0.15 * 0.85 / n) ** 0.5
    assert (middle.mean() - middle).abs().max() < 5 * deviation


def test_all_ways_to_cut_are_as_likely():
    n = 6000
    chance = torch.rand(n, 5, generator=torch.Generator().manual_seed(0))
    sizes = random_partition(torch.full((n,), 5), torch.full((n,), 3), 3, chance)
    found = Counter(map(tuple, sizes.tolist()))
    ways = {w for w in itertools.product(range(1, 4), repeat=3) if sum(w) == 5}
    assert set(found) == ways
    expected = n / len(ways)
    assert sum((found[w] - expected) ** 2 / expected for w in ways) < 20.5  # chi squared, 5 degrees: p = 0.001
