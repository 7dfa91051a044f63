"""Companding and transforms: round trips, independent formulas, and sound from magnitudes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from zoo.metrics.spectral_convergence import log_spectral_distance, spectral_convergence
from zoo.nn.blocks.mfcc import mel_filters
from zoo.nn.blocks.mu_law import LEVELS, mu_law_decode, mu_law_encode
from zoo.nn.blocks.spectral import griffin_lim, istft, log_mel, magnitudes_of_mel, stft


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decibels(signal, error):
    return float(10 * (signal.square().mean() / error.square().mean()).log10())


def test_every_code_comes_back_and_codes_are_ordered():
    codes = torch.arange(LEVELS)
    assert torch.equal(mu_law_encode(mu_law_decode(codes)), codes)
    assert torch.equal(mu_law_encode(mu_law_decode(codes, 16), 16)[:16], codes[:16])
    values = mu_law_decode(codes)
    assert (values.diff() > 0).all()
    assert values[[0, -1]].tolist() == pytest.approx([-1, 1])
    assert mu_law_encode(torch.tensor([-3.0, 3.0])).tolist() == [0, LEVELS - 1]


def test_a_sample_is_at_most_half_a_step_away():
    x = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    values, codes = mu_law_decode(torch.arange(LEVELS)).double(), mu_law_encode(x)
    squeeze = lambda v: v.sign() * (255 * v.abs()).log1p() / np.log(256)  # noqa: E731
    assert float((squeeze(x) - squeeze(values[codes])).abs().max()) <= 1 / 255 + 1e-6


def test_quiet_sounds_keep_their_quality():
    """Mu-law has about 38 dB over a wide range (ITU-T G.711); equal steps lose a decibel for each."""
    x, linear, companded = noise(20_000).clamp(-3, 3) / 3, [], []
    for quieter in (0, 10, 20, 30):
        y = x * 10 ** (-quieter / 20)
        companded.append(decibels(y, y - mu_law_decode(mu_law_encode(y))))
        linear.append(decibels(y, y - (((y + 1) / 2 * 255).round() / 255 * 2 - 1)))
    assert min(companded) > 30
    assert companded[0] - companded[3] < 6
    assert linear[0] - linear[3] == pytest.approx(30, abs=3), "with equal steps the noise stays as loud"


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 32), (128, 32)])
def test_the_transform_is_inverted(n_fft, hop):
    x = noise(2, 3, 500)
    spectrum = stft(x, n_fft, hop)
    assert spectrum.shape == (2, 3, n_fft // 2 + 1, 1 + 500 // hop)
    inside = 500 // hop * hop  # the last samples have a window that is nearly zero
    found = istft(spectrum, n_fft, hop, inside)
    assert torch.allclose(found, x[..., :inside], atol=1e-10)
    spectrum[..., 3] *= 1.01
    assert not torch.allclose(istft(spectrum, n_fft, hop, inside), x[..., :inside], atol=1e-4)


@pytest.mark.parametrize(("n_fft", "hop", "length"), [(64, 16, 500), (64, 32, 480), (128, 32, 700)])
def test_the_inverse_of_any_spectrum_is_that_of_torch(n_fft, hop, length):
    frames = 1 + length // hop
    spectrum = torch.complex(noise(2, n_fft // 2 + 1, frames), noise(2, n_fft // 2 + 1, frames, seed=1))
    window = torch.hann_window(n_fft, dtype=torch.float64)
    expected = torch.istft(spectrum, n_fft, hop, window=window, length=length)
    assert torch.allclose(istft(spectrum, n_fft, hop, length), expected, atol=1e-10)


def test_a_frame_is_the_discrete_fourier_transform():
    x, n_fft, hop = noise(300), 64, 16
    frame = x[5 * hop - n_fft // 2 : 5 * hop + n_fft // 2].numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    assert np.allclose(stft(x[None], n_fft, hop)[0, :, 5].numpy(), np.fft.rfft(frame * window), atol=1e-10)


def test_mel_filters_are_those_of_the_formula():
    """Triangles of `librosa.filters.mel(htk=True, norm=None)`, written again from the definition."""
    rate, n_fft, n = 8000, 256, 20
    to_mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    points = 700 * (10 ** (np.linspace(to_mel(0), to_mel(rate / 2), n + 2) / 2595) - 1)
    expected = np.stack([
        np.interp(np.arange(n_fft // 2 + 1) * rate / n_fft, points[i : i + 3], [0, 1, 0], left=0, right=0)
        for i in range(n)
    ])  # fmt: skip
    found = mel_filters(n, n_fft, rate, lowest=0.0)
    assert np.allclose(found.numpy(), expected, atol=1e-12)
    assert not np.allclose(mel_filters(n, n_fft, rate, lowest=50.0).numpy(), expected, atol=1e-3)


def test_mel_filters_agree_with_librosa():
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=8000, n_fft=256, n_mels=20, htk=True, norm=None)
    assert np.allclose(mel_filters(20, 256, 8000, lowest=0.0).numpy(), expected, atol=1e-6)


def test_a_tone_is_in_its_band():
    time = torch.arange(4000, dtype=torch.float64) / 8000
    mel = log_mel((2 * torch.pi * 1000 * time).sin(), 8000, 256, 64, 20)
    centres = 700 * (10 ** (torch.linspace(0, 2595 * np.log10(1 + 4000 / 700), 22)[1:-1] / 2595) - 1)
    assert mel.shape == (20, 63)
    assert abs(float(centres[int(mel.mean(1).argmax())]) - 1000) < 150


def test_griffin_lim_never_gets_worse_and_finds_a_sound():
    time = torch.arange(1024, dtype=torch.float64) / 8000
    x = (2 * torch.pi * 500 * time).sin() + 0.5 * (2 * torch.pi * 1300 * time).sin()
    magnitude = stft(x[None], 128, 32).abs()
    errors = [
        float(spectral_convergence(magnitude, stft(griffin_lim(magnitude, 128, 32, 1024, n), 128, 32).abs()))
        for n in range(0, 40, 4)
    ]
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    assert errors[-1] < 0.5 * errors[0]


def test_spectral_convergence_by_hand():
    a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 4.0]]])
    assert spectral_convergence(a, b).tolist() == pytest.approx([0.6])
    assert spectral_convergence(a, a).tolist() == [0]


def test_log_spectral_distance_by_hand():
    a = torch.tensor([[1.0, 0.1], [1.0, 1.0]])[None]  # two frequencies, two frames
    b = torch.tensor([[10.0, 0.1], [1.0, 0.1]])[None]
    expected = ((20**2 / 2) ** 0.5 + (20**2 / 2) ** 0.5) / 2
    assert log_spectral_distance(a, b).tolist() == pytest.approx([expected])
    assert log_spectral_distance(a, a).tolist() == [0]
    quiet = a * torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert log_spectral_distance(a, quiet, 60).tolist() == pytest.approx([(60**2 / 2) ** 0.5 / 2]), "a floor"
    assert log_spectral_distance(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).tolist() == [0]


def test_magnitudes_of_a_mel_spectrogram():
    """They are not negative, have nearly its bands, and more iterations bring them nearer."""
    x = noise(1, 1000)
    mel = log_mel(x, 8000, 128, 32, 20)
    errors = []
    for iterations in (0, 10, 100):
        found = magnitudes_of_mel(mel, 8000, 128, iterations)
        assert found.shape == stft(x, 128, 32).shape
        assert (found >= 0).all()
        bands = mel_filters(20, 128, 8000, lowest=0.0) @ (found.square() / 128)
        errors.append(float((bands - mel.exp()).norm() / mel.exp().norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2
