"""The distribution is known: probabilities add up, and the entropy is that of long pieces."""

import math
from itertools import product

import torch

from zoo.data.loader import make_generator
from zoo.data.music.synthetic_chorales import BEAT, CHORDS, KEYS, draw, entropy_rate, log_prob, voicing


def played(key, chords, tops):
    return torch.stack([voicing(key, c, t) for c, t in zip(chords, tops, strict=True)]).repeat_interleave(BEAT, 0)


def test_probabilities_of_all_pieces_of_two_beats_add_up_to_one():
    found = {}
    for key, (a, b), tops in product(range(KEYS), product(range(len(CHORDS)), repeat=2), product(range(3), repeat=2)):
        piece = played(key, (a, b), tops)
        found[tuple(piece.flatten().tolist())] = math.exp(log_prob(piece))
    assert math.isclose(sum(found.values()), 1, abs_tol=1e-12)


def test_what_cannot_occur_has_probability_zero():
    good = played(3, (0, 3), (0, 1))
    assert log_prob(good) > -math.inf
    assert log_prob(played(3, (1, 3), (0, 1))) == -math.inf, "it begins with the tonic"
    assert log_prob(played(3, (0, 1, 2), (0, 1, 1))) == -math.inf, "ii never leads to IV"
    early = good.clone()
    early[3] = good[4]
    assert log_prob(early) == -math.inf, "a chord lasts a beat"


def test_the_entropy_is_that_of_a_long_piece():
    piece = draw(3000, make_generator(1))
    # The standard deviation of the mean is about 1 nat per beat / sqrt(3000) / 16 notes = 0.0011.
    assert abs(-log_prob(piece) / piece.numel() - entropy_rate()) < 0.004
    assert entropy_rate() < math.log(len(CHORDS) * 3) / 16, "less than chords drawn without memory"
