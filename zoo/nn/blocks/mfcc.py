"""Mel-frequency cepstral coefficients of speech (Davis & Mermelstein 1980, IEEE Trans. ASSP 28)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-8  # of powers, below the noise of 16-bit recordings


def mel_filters(n_filters: int, n_fft: int, sample_rate: int, lowest: float = 100.0, warp: float = 1.0) -> Tensor:
    """Triangles that are equally wide on the mel scale 2595 log10(1 + f / 700), (n_filters, n_fft // 2 + 1).

    With a `warp`, their edges are those of `warped_hertz`, as for a speaker with another length of the vocal tract.
    """
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (lowest, sample_rate / 2))
    edges = 700 * (10 ** (torch.linspace(low, high, n_filters + 2, dtype=torch.float64) / 2595) - 1)
    edges = edges if warp == 1 else warped_hertz(edges, warp, sample_rate / 2)
    hertz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


def warped_hertz(hertz: Tensor, warp: float, highest: float) -> Tensor:
    """Frequencies times `warp`, and from a bend at 4/5 of the range linear to `highest`, which stays.

    Source: Lee & Rose 1998, IEEE Trans. Speech and Audio Processing 6, piecewise linear.

    Args:
        hertz: frequencies from 0 to `highest`.
        warp: a positive factor.
        highest: the largest frequency.
    """
    bend = 0.8 * highest * min(1.0, 1 / warp)
    above = highest - (highest - warp * bend) / (highest - bend) * (highest - hertz)
    return torch.where(hertz <= bend, warp * hertz, above)


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


def power_spectra(wave: Tensor, sample_rate: int, *, seconds: float = 0.025, hop: float = 0.01) -> Tensor:
    """Power of short windows of the pre-emphasised wave: float64 (T, n_fft // 2 + 1).

    Args:
        wave: samples (N,) in [-1, 1].
        sample_rate: in Hz.
        seconds: of a window; n_fft is the next power of two of its samples.
        hop: seconds between windows.
    """
    size, step = round(seconds * sample_rate), round(hop * sample_rate)
    n_fft = 2 ** math.ceil(math.log2(size))
    wave = wave.double()
    wave = torch.cat([wave[:1], wave[1:] - 0.97 * wave[:-1]])  # pre-emphasis
    frames = F.pad(wave, (0, max(size - len(wave), 0))).unfold(0, size, step)  # (T, size)
    return torch.fft.rfft(frames * torch.hamming_window(size, dtype=torch.float64), n_fft).abs().square() / n_fft


def trimmed(power: Tensor, decibels: float, margin: int = 3) -> Tensor:
    """Spectra (T, F) from the first to the last frame that is at most so many decibels below the loudest one.

    Args:
        power: of each frame and frequency.
        decibels: below the loudest frame.
        margin: frames that are kept before and after.
    """
    loudness = power.sum(1)
    heard = (loudness >= loudness.max() * 10 ** (-decibels / 10)).nonzero()[:, 0]
    return power[max(int(heard[0]) - margin, 0) : int(heard[-1]) + margin + 1]


def standardised(x: Tensor) -> Tensor:
    """Frames (T, D) with mean 0 and variance 1 of each coefficient over the recording."""
    return (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-3)


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
    power = power_spectra(wave, sample_rate, seconds=seconds, hop=hop)
    filters = mel_filters(n_filters, 2 * (power.shape[1] - 1), sample_rate)
    cepstra = (power @ filters.T).clamp(min=FLOOR).log() @ cosine_transform(n, n_filters).T
    return torch.cat([cepstra - cepstra.mean(0), deltas(cepstra)], 1)


def robust_mfcc(
    power: Tensor, sample_rate: int, *, n: int = 13, n_filters: int = 26, warp: float = 1.0, decibels: float = 30.0
) -> Tensor:
    """Cepstral coefficients, their slopes and the slopes of these, each standardised over the recording: (T, 3 n).

    Loudness, a constant filter of the channel, and noise of less than the floor have no effect or a small one.

    Args:
        power: spectra (T, F) of `power_spectra`, which may be `trimmed`.
        sample_rate: in Hz.
        n: coefficients.
        n_filters: of the mel scale.
        warp: of the frequencies, see `mel_filters`.
        decibels: bands have a floor so far below the loudest one of the recording.
    """
    bands = power @ mel_filters(n_filters, 2 * (power.shape[1] - 1), sample_rate, warp=warp).T.to(power)
    floor = bands.max().clamp(min=1e-30) * 10 ** (-decibels / 10)
    cepstra = standardised((bands + floor).log() @ cosine_transform(n, n_filters).T.to(power))
    slopes = deltas(cepstra)
    return torch.cat([cepstra, standardised(slopes), standardised(deltas(slopes))], 1)
