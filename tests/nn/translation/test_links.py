"""The sparse matrices of IBM model 1 against a loop over links."""

import math

import numpy as np
import pytest
import torch

from zoo.nn.translation.links import Links, argsort


@pytest.mark.parametrize("most", [5, 2**45])  # large keys do not fit into one number with their place
def test_counts_are_those_of_a_loop(most):
    g = torch.Generator().manual_seed(0)
    widths = torch.randint(1, 6, (200,), generator=g)
    keys = torch.randint(0, 5, (int(widths.sum()),), generator=g) * (most // 5)
    real = torch.rand(200, generator=g) < 0.8
    links = Links(keys, widths)
    assert links.keys.tolist() == sorted(set(keys.tolist()))
    assert torch.equal(links.keys[links.index], keys)
    t = torch.rand(len(links.keys), dtype=torch.float64, generator=g)
    table, expected, nats = (
        dict(zip(links.keys.tolist(), t.tolist(), strict=True)),
        dict.fromkeys(keys.tolist(), 0.0),
        0.0,
    )
    for some, counted in zip(keys.split(widths.tolist()), real.tolist(), strict=True):
        total = sum(table[k] for k in some.tolist())
        if counted:
            nats += math.log(total / len(some))
            for k in some.tolist():
                expected[k] += table[k] / total
    counts, found = links.expected_counts(t, real)
    assert counts.tolist() == pytest.approx([expected[k] for k in links.keys.tolist()], rel=1e-12)
    assert found == pytest.approx(nats, rel=1e-12)
    assert counts.sum() == pytest.approx(int(real.sum())), "one link for each target word"
    assert float((counts - links.expected_counts(t, ~real)[0]).abs().max()) > 0.1, "control: padding matters"


@pytest.mark.parametrize("top", [50, 2**62])
def test_order_is_stable(top):
    keys = np.random.default_rng(0).integers(0, 50, 3000) * (top // 50)
    values, order = argsort(keys)
    expected = np.argsort(keys, kind="stable")
    assert (order == expected).all()
    assert (values == keys[expected]).all()
    assert argsort(keys[:0])[0].shape == (0,)
