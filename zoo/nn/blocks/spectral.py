"""Short-time Fourier transform, mel spectrograms, and sound from magnitudes."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.blocks.mfcc import FLOOR, mel_filters


def stft(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    """Short-time Fourier transform by a Hann window: (..., N) -> complex (..., n_fft // 2 + 1, 1 + N // hop).

    Frame t is centred at sample t hop; the ends of the wave are mirrored.
    """
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    flat = torch.stft(wave.reshape(-1, wave.shape[-1]), n_fft, hop, window=window, return_complex=True)
    return flat.reshape(*wave.shape[:-1], *flat.shape[1:])


def istft(spectrum: Tensor, n_fft: int, hop: int, length: int) -> Tensor:
    """Inverse of `stft`, and for other spectra the wave whose transform is nearest (Griffin & Lim 1984, eq. 6).

    Frames are windowed again, added up, and divided by the sum of the squared windows. `torch.istft` does this too, but
    its check of that sum reads a number back from a GPU.
    """
    window = torch.hann_window(n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    frames = torch.fft.irfft(flat, n_fft, dim=1) * window[:, None]  # (B, n_fft, T)
    size = n_fft + hop * (flat.shape[-1] - 1)
    squared = window.square()[None, :, None].expand(1, -1, flat.shape[-1])
    total, weight = (F.fold(part, (1, size), (1, n_fft), stride=(1, hop))[:, 0, 0] for part in (frames, squared))
    wave = (total / weight.clamp(min=1e-11))[:, n_fft // 2 : n_fft // 2 + length]
    return F.pad(wave, (0, length - wave.shape[-1])).reshape(*spectrum.shape[:-2], length)


def log_mel(wave: Tensor, sample_rate: int, n_fft: int, hop: int, n_filters: int) -> Tensor:
    """Logarithm of the power in triangular bands of the mel scale, (..., N) -> (..., n_filters, 1 + N // hop)."""
    power = stft(wave, n_fft, hop).abs().square() / n_fft
    filters = mel_filters(n_filters, n_fft, sample_rate, lowest=0.0).to(power)
    return (filters @ power).clamp(min=FLOOR).log()


def magnitudes_of_mel(mel: Tensor, sample_rate: int, n_fft: int, iterations: int = 100) -> Tensor:
    """Magnitudes of a transform whose `log_mel` is about the given one, (..., M, T) -> (..., n_fft // 2 + 1, T).

    Powers that are not negative are fitted to the bands by least squares. Multiplicative updates never raise the error
    (Lee & Seung 2001, NIPS, theorem 1).
    """
    filters = mel_filters(mel.shape[-2], n_fft, sample_rate, lowest=0.0).to(mel)
    bands = mel.exp()
    power = filters.T @ bands / filters.sum(0)[:, None].clamp(min=1e-6)
    for _ in range(iterations):
        power = power * (filters.T @ bands) / (filters.T @ (filters @ power)).clamp(min=1e-30)
    return (power * n_fft).sqrt()


def griffin_lim(magnitude: Tensor, n_fft: int, hop: int, length: int, iterations: int = 60, seed: int = 0) -> Tensor:
    """Wave with about these magnitudes of its `stft` (..., F, T) -> (..., length) (Griffin & Lim 1984, IEEE ASSP 32).

    It begins with random phases, and repeats: the nearest wave, then the phases of its transform. The distance between
    the magnitudes never rises.
    """
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * torch.rand(magnitude.shape, generator=generator, dtype=magnitude.dtype)
    spectrum = torch.polar(magnitude, phase.to(magnitude.device))
    for _ in range(iterations):
        found = stft(istft(spectrum, n_fft, hop, length), n_fft, hop)
        spectrum = torch.polar(magnitude, found.angle())
    return istft(spectrum, n_fft, hop, length)
