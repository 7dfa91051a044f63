"""Cepstral coefficients against SciPy and properties of the formulas."""

import math

import pytest
import scipy.fft
import torch

from zoo.nn.blocks.mfcc import (
    cosine_transform,
    deltas,
    mel_filters,
    mfcc,
    power_spectra,
    robust_mfcc,
    trimmed,
    warped_hertz,
)


def test_the_cosine_transform_is_scipys() -> None:
    x = torch.randn(26, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.tensor(scipy.fft.dct(x.numpy(), type=2, norm="ortho"))
    torch.testing.assert_close(cosine_transform(13, 26) @ x, wanted[:13])
    assert not torch.allclose(cosine_transform(13, 26) @ x.flip(0), wanted[:13])


def test_filters_are_triangles_on_the_mel_scale() -> None:
    filters = mel_filters(20, 4096, 8000)
    peaks = filters.argmax(1) * 8000 / 4096
    mel = 2595 * (1 + peaks / 700).log10()
    steps = mel.diff()
    assert float(steps.max() / steps.min()) == pytest.approx(1, abs=0.1)
    total = filters.sum(0)[
        (torch.arange(2049) * 8000 / 4096 > peaks[0]) & (torch.arange(2049) * 8000 / 4096 < peaks[-1])
    ]
    torch.testing.assert_close(total, torch.ones_like(total))
    assert float(peaks.diff().max() / peaks.diff().min()) > 2, "in hertz they are not equally wide"


def test_deltas_are_slopes() -> None:
    x = torch.arange(10.0, dtype=torch.float64)[:, None] * torch.tensor([3.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(deltas(x)[2:-2], torch.tensor([[3.0, -1.0]], dtype=torch.float64).expand(6, -1))
    assert float(deltas(x)[0, 0]) < 3, "the ends are repeated"


def test_loudness_does_not_matter_and_pitch_does() -> None:
    t = torch.arange(4000) / 8000
    noise = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    wave = (2 * math.pi * 440 * t * (1 + t)).sin() + noise
    one = mfcc(wave, 8000)
    assert one.shape == (48, 26)
    torch.testing.assert_close(one, mfcc(0.1 * wave, 8000), atol=1e-6, rtol=0)
    other = mfcc((2 * math.pi * 440 * t * (1 + 2 * t)).sin() + noise, 8000)
    assert float((one - other).abs().max()) > 0.5


def test_a_warp_multiplies_low_frequencies_and_keeps_the_ends() -> None:
    hertz = torch.linspace(0, 4000, 81, dtype=torch.float64)
    for warp in (0.8, 1.0, 1.25):
        moved = warped_hertz(hertz, warp, 4000.0)
        torch.testing.assert_close(moved[:40], warp * hertz[:40])
        assert float(moved[0]) == 0
        assert float(moved[-1]) == pytest.approx(4000)
        assert (moved.diff() > 0).all()
    peaks = [mel_filters(20, 4096, 8000, warp=warp).argmax(1) * 8000 / 4096 for warp in (1.0, 1.2)]
    torch.testing.assert_close(peaks[1][:12], 1.2 * peaks[0][:12], atol=2.5, rtol=0)  # one bin is 2 Hz wide


def test_a_longer_vocal_tract_is_undone_by_its_warp() -> None:
    """A spectrum whose frequencies are all multiplied by 1.1 is read as the first one by filters warped by 1.1."""
    hertz = torch.linspace(0, 4000, 2049, dtype=torch.float64)
    peaks = torch.linspace(400, 2400, 30, dtype=torch.float64)[:, None]  # a formant that rises, (30, 1)
    power, moved = ((-(((hertz / by - peaks) / 150) ** 2)).exp() for by in (1.0, 1.1))
    own = robust_mfcc(power, 8000)
    right, wrong = (float((robust_mfcc(moved, 8000, warp=w) - own).abs().mean()) for w in (1.1, 1.0))
    assert right < wrong / 4


def test_robust_coefficients_ignore_loudness_a_filter_and_quiet_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(4000, generator=generator) * (torch.arange(4000) / 300).sin()
    power = power_spectra(wave, 8000)
    own = robust_mfcc(power, 8000)
    assert own.shape == (len(power), 39)
    torch.testing.assert_close(own.mean(0), torch.zeros(39, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(own.std(0, correction=0), torch.ones(39, dtype=torch.float64))
    torch.testing.assert_close(robust_mfcc(100 * power, 8000), own)
    for decibels, least, most in ((50, 0, 0.1), (0, 0.3, 9)):
        noisy = robust_mfcc(power + power.max() * 10 ** (-decibels / 10) * torch.rand(power.shape), 8000)
        assert least < float((noisy - own).abs().mean()) < most


def test_quiet_ends_are_cut_and_quiet_middles_are_not() -> None:
    power = torch.tensor([0.0, 0, 0, 0, 0, 1, 0, 0, 1, 0.001, 0, 0, 0, 0])[:, None] + 1e-6
    assert torch.equal(trimmed(power, 20, margin=1), power[4:10])
    assert torch.equal(trimmed(power, 40, margin=1), power[4:11])
