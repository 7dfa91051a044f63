"""Distance of spectrograms: an independent transform, equality, invariance, gradients."""

import itertools

import numpy as np
import pytest
import torch
from scipy.signal import ShortTimeFFT

from zoo.core.errors import ZooError
from zoo.core.spaces import Audio, Image
from zoo.core.spec import DataSpec
from zoo.nn.distributions.spectral import Spectral
from zoo.nn.losses.spectral import FLOOR, fitting_sizes, multiscale_spectral


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_scipy(x, y, sizes, linear):
    """The distance of two sounds (N,), by scipy's transform of the mirrored sounds."""
    total = 0.0
    for n in sizes:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
        transform = ShortTimeFFT(window, n // 4, fs=1.0, fft_mode="onesided")
        s, t = (
            np.abs(transform.stft(np.pad(v, n // 2, mode="reflect"), p0=2, p1=2 + 1 + len(v) // (n // 4)))
            / np.sqrt((window**2).sum())
            for v in (x.numpy(), y.numpy())
        )
        total += linear * np.abs(s - t).mean() + np.abs(np.log(s + FLOOR) - np.log(t + FLOOR)).mean()
    return total / len(sizes)


def test_the_distance_is_that_of_another_transform():
    x, y = noise(2, 1, 300), 0.3 * noise(2, 1, 300, seed=1)
    found = multiscale_spectral(x, y, (32, 64, 128), 0.7)
    expected = [by_scipy(x[k, 0], y[k, 0], (32, 64, 128), 0.7) for k in range(2)]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert multiscale_spectral(x, y, (32, 64), 0.7).tolist() != pytest.approx(expected, rel=1e-3)
    assert multiscale_spectral(x, y, (32, 64, 128), 0.6).tolist() != pytest.approx(expected, rel=1e-3)


def test_it_is_zero_for_equal_sounds_only_but_for_the_sign():
    time = torch.arange(400, dtype=torch.float64)
    sounds = [(w * time + p).sin() for w in (0.1, 0.11, 1.0) for p in (0.0, 1.0)] + [noise(400), noise(400, seed=1)]
    sounds += [torch.zeros(400).double(), 0.5 * sounds[0], sounds[-1].flip(0)]
    sizes = (32, 128)
    for x, y in itertools.product(sounds, sounds):
        distance = float(multiscale_spectral(x[None, None], y[None, None], sizes))
        assert distance >= 0
        assert (distance == 0) == (x is y)
        if x is not y:
            assert distance > 1e-3
    x = noise(1, 1, 400)
    assert float(multiscale_spectral(x, -x, sizes)) == pytest.approx(0, abs=1e-12), "spectrograms have no sign"
    likelihood = Spectral(DataSpec(Audio(1, 400, 8000)), sizes=sizes)
    assert float(likelihood.log_prob(x, x)) == 0
    expected = -400 * likelihood.wave * float((2 * x).abs().mean())
    assert float(likelihood.log_prob(-x, x)) == pytest.approx(expected), "but waveforms have one"


def test_gradients_are_finite_in_silence_and_are_those_of_differences():
    for y in (torch.zeros(1, 2, 200), noise(1, 2, 200, seed=2).float()):
        y.requires_grad_()
        multiscale_spectral(noise(1, 2, 200).float(), y, (32, 64)).sum().backward()
        assert y.grad.isfinite().all()
    x, y = noise(1, 1, 24), noise(1, 1, 24, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: multiscale_spectral(x, given, (8, 16)), (y,))


def test_transforms_that_are_too_long_are_left_out():
    assert fitting_sizes((64, 128, 256), 100) == [64, 128]
    assert fitting_sizes((64,), 20) == [16]
    for samples in (3, 4, 7, 31, 33):
        assert multiscale_spectral(torch.zeros(1, 1, samples), torch.ones(1, 1, samples), (64,)).isfinite().all()


def test_only_sounds_are_compared():
    with pytest.raises(ZooError, match=r"needs sounds.*gaussian"):
        Spectral(DataSpec(Image(1, 8, 8), name="digits"))
