"""Memorisation against distances by hand, its floor for fresh data, and copies of known number."""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.data.image.digits import Digits
from zoo.metrics.memorisation import memorisation


def column(*values):
    return torch.tensor(values)[:, None]


def test_by_hand():
    """Training points at 0, 1, 4 and 10, whose nearest others are 1, 1, 3 and 6 away."""
    train, held_out = column(0.0, 1.0, 4.0, 10.0), column(0.5, 2.0, 6.0)  # held out: .5, 1 and 2 away
    samples = column(0.25, -2.0, 4.5, 7.5, 20.0)  # .25 (of 0), 2 (of 0), .5 (of 4), 2.5 (of 10), 10 (of 10)
    scores = memorisation(samples, held_out, train)
    assert scores["ratio"] == pytest.approx(2 / 1)
    assert scores["copied"] == pytest.approx(2 / 5)  # the 1st percentile is .5 + .02 * .5
    assert scores["authentic"] == pytest.approx(2 / 5)  # 2 > 1 and 10 > 6
    assert scores["authentic_held_out"] == 0  # .5 < 1, 1 = 1, 2 < 3


def test_a_third_is_authentic_on_a_line():
    """Between points of a Poisson process, Exp(2) away from the nearest of them, the next is Exp(1) farther."""
    train, held_out, samples = torch.rand(3, 4000, 1)
    assert memorisation(samples, held_out, train)["authentic"] == pytest.approx(1 / 3, abs=4 * 0.0075)


@pytest.mark.parametrize("dim", [1, 2, 16])
def test_fresh_data_of_the_same_distribution_is_on_the_floor(dim):
    train, held_out, samples = torch.randn(3, 3000, dim)
    scores = memorisation(samples, held_out, train)
    assert scores["ratio"] == pytest.approx(1, abs=0.1)
    assert scores["copied"] == pytest.approx(0.01, abs=4 * (2 * 0.01 / 3000) ** 0.5)
    assert scores["authentic"] == pytest.approx(scores["authentic_held_out"], abs=4 * (0.5 / 3000) ** 0.5)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_copies_are_counted(share):
    train, held_out, fresh = torch.randn(3, 1000, 20) * 7 + 100
    n = round(1000 * share)
    scores = memorisation(torch.cat([train[:n], fresh[n:]]), held_out, train)
    assert scores["copied"] == pytest.approx(share + 0.01 * (1 - share), abs=0.02)
    assert scores["authentic"] == pytest.approx((1 - share) * scores["authentic_held_out"], abs=0.06)
    if share == 1:
        assert [scores[name] for name in ("ratio", "copied", "authentic")] == [0, 1, 0]


def test_duplicates_in_the_training_set_do_not_hide_copies():
    train, held_out = torch.randn(2, 300, 5)
    scores = memorisation(train, held_out, torch.cat([train, train]))
    assert [scores[name] for name in ("ratio", "copied", "authentic")] == [0, 1, 0]


def test_held_out_copies_do_not_hide_copies():
    """Two in a hundred held-out points are in the training set: the threshold is zero, and zero is enough."""
    train, held_out = torch.randn(2, 300, 5)
    scores = memorisation(train, torch.cat([train[:6], held_out[6:]]), train)
    assert [scores[name] for name in ("ratio", "copied", "authentic")] == [0, 1, 0]


def test_digits_copied_blurred_and_noisy():
    """The numbers of the docstring: what blur does, and noise does not."""
    data = Digits()
    data.load()
    train, held_out = data.train[0], torch.cat([data.val[0], data.test[0]])

    def blurred(x):
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)

    def score(samples):
        scores = memorisation(samples, held_out, train)
        return pytest.approx([scores[name] for name in ("ratio", "copied", "authentic")], abs=0.02)

    assert score(train) == [0, 1, 0]
    assert score(train + 0.05 * torch.randn(train.shape)) == [0.39, 1, 0]
    assert score(blurred(train)) == [1.63, 0, 0.99]
    assert score(blurred(held_out)) == [1.65, 0, 1]


def test_mirrored_copies_are_found() -> None:
    """Half of the copies are mirror images, as data.flip=true shows them."""
    generator = torch.Generator().manual_seed(0)
    train, held_out = (torch.rand(100, 1, 4, 4, generator=generator) for _ in range(2))
    copies = torch.cat([train[:50], train[50:].flip(-1)])
    plain = memorisation(copies, held_out, train)
    both = memorisation(copies, held_out, train, lambda x: [x, x.flip(-1)])
    assert plain["copied"] == pytest.approx(0.5, abs=0.05)
    assert (both["copied"], both["ratio"], both["authentic"]) == (1, 0, 0)


def test_one_training_point() -> None:
    found = memorisation(torch.rand(3, 2), torch.rand(3, 2), torch.rand(1, 2))
    assert found["ratio"] > 0
    assert math.isnan(found["authentic"])
