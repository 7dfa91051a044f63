"""Mel-frequency cepstral coefficients of speech (Davis & Mermelstein 1980, IEEE Trans. ASSP 28)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-8  # of powers, below the noise of 16-bit recordings


def mel_filters(n_filters: int, n_fft: int, sample_rate: int, lowest: float = 100.0) -> Tensor:
    """Triangles that are equally wide on the mel scale 2595 log10(1 + f / 700), (n_filters, n_fft // 2 + 1)."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (lowest, sample_rate / 2))
    edges = 700 * (10 ** (torch.linspace(low, high, n_filters + 2, dtype=torch.float64) / 2595) - 1)
    hertz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


def cosine_transform(n: int, size: int) -> Tensor:
    """The first n rows of the orthonormal discrete cosine transform of a size, (n, size)."""
    k, at = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * k * (at + 0.5) / size) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def deltas(x: Tensor, reach: int = 2) -> Tensor:
    """Slopes of the regression over 2 reach + 1 frames (T, D), the ends repeated."""
    padded = F.pad(x.T[None], (reach, reach), mode="replicate")[0]  # (D, T + 2 reach)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype)
    return (padded.unfold(1, 2 * reach + 1, 1) @ (at / at.square().sum())).T


def mfcc(
    wave: Tensor, sample_rate: int, *, n: int = 13, n_filters: int = 26, seconds: float = 0.025, hop: float = 0.01
) -> Tensor:
    """Cepstral coefficients and their slopes, without the mean of the recording: float64 (T, 2 n).

    Args:
        wave: samples (N,) in [-1, 1].
        sample_rate: in Hz.
        n: coefficients.
        n_filters: of the mel scale.
        seconds: of a window.
        hop: seconds between windows.
    """
    size, step = round(seconds * sample_rate), round(hop * sample_rate)
    n_fft = 2 ** math.ceil(math.log2(size))
    wave = wave.double()
    wave = torch.cat([wave[:1], wave[1:] - 0.97 * wave[:-1]])  # pre-emphasis
    frames = F.pad(wave, (0, max(size - len(wave), 0))).unfold(0, size, step)  # (T, size)
    power = torch.fft.rfft(frames * torch.hamming_window(size, dtype=torch.float64), n_fft).abs().square() / n_fft
    logs = (power @ mel_filters(n_filters, n_fft, sample_rate).T).clamp(min=FLOOR).log()
    cepstra = logs @ cosine_transform(n, n_filters).T
    return torch.cat([cepstra - cepstra.mean(0), deltas(cepstra)], 1)
