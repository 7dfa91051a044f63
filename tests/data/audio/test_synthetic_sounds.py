"""Synthetic sounds: their level, kinds, pitches and resonances."""

import pytest
import torch

import zoo
from zoo.core.spaces import Audio
from zoo.data.audio.synthesizer import hertz
from zoo.data.audio.synthetic_sounds import (
    FORMANTS,
    KINDS,
    NOISE,
    PITCHES,
    RATE,
    SHORTEST,
    draw,
    drum,
    note,
    vowel,
)
from zoo.data.loader import make_generator


def test_sounds_are_equally_loud_and_their_kinds_alternate():
    x, y = draw(24, 2048, make_generator(0))
    assert x.shape == (24, 2048)
    assert y.bincount().tolist() == [6] * len(KINDS)
    assert float(x.abs().max()) <= 1
    level = x.square().mean(1).sqrt()
    assert (level < 0.1001).all()
    assert ((level > 0.0999) | (x.abs().max(1).values > 0.999)).all(), "20 dB below full scale, or at full scale"
    again, _ = draw(24, 2048, make_generator(0))
    assert torch.equal(x, again)
    assert not torch.equal(x, draw(24, 2048, make_generator(1))[0])


def test_the_data_set():
    data = zoo.create_data("synthetic_sounds", samples=256)
    data.setup()
    assert data.spec.x == Audio(1, 256, RATE)
    assert data.spec.n_classes == 4
    assert [len(part[0]) for part in (data.train, data.val, data.test)] == [1200, 120, 120]


def test_notes_have_pitches_of_the_scale():
    scale = torch.tensor([hertz(pitch) for pitch in range(*PITCHES)])
    for seed in range(12):
        first = note(8192, make_generator(seed))[:4096]  # one note, or the first of two
        peak = float((torch.fft.rfft(first * torch.hann_window(4096), 2**16).abs()).argmax()) * RATE / 2**16
        assert float((12 * (peak / scale).log2()).abs().min()) < 0.3, "semitones"


def test_vowels_have_the_resonances_of_one_row():
    """Energy is larger at the first two formants than where no vowel has one."""
    for seed in range(8):
        power = torch.fft.rfft(vowel(8192, make_generator(seed))).abs().square()
        band = lambda low, high: float(power[int(low * 8192 / RATE) : int(high * 8192 / RATE)].mean())  # noqa: B023, E731
        found = [band(0.85 * f1, 1.2 * f1) for f1, _, _ in FORMANTS.values()]
        assert max(found) > 30 * band(3600, 4000)


def test_strokes_of_a_drum_are_equal_and_decay():
    for seed in range(12):
        x = drum(3072, make_generator(seed))
        count = next(k for k in (3, 2, 1) if torch.allclose(x[: 3072 // k].repeat(k), x))
        parts = x[: 3072 // count].chunk(4)
        assert parts[0].square().mean() > parts[-1].square().mean()
    assert NOISE < 0.01


def test_the_shortest_sounds_are_finite_and_shorter_ones_are_refused():
    generator = make_generator(1)
    assert all(vowel(SHORTEST, generator).isfinite().all() for _ in range(300))
    assert not all(vowel(40, generator).isfinite().all() for _ in range(10))  # no pulse: 0 / 0
    with pytest.raises(zoo.ZooError, match="samples=127"):
        zoo.create_data("synthetic_sounds", samples=127)
