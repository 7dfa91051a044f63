"""Cepstral coefficients against SciPy and properties of the formulas."""

import math

import pytest
import scipy.fft
import torch

from zoo.nn.blocks.mfcc import cosine_transform, deltas, mel_filters, mfcc


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
