"""Distances between sounds by their spectrograms."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.nn.blocks.spectral import stft

FLOOR = 1e-3  # added to magnitudes before the logarithm: 60 dB below noise of variance one
OVERLAP = 4  # frames that contain a sample


def magnitudes(wave: Tensor, n_fft: int) -> Tensor:
    """Magnitudes of the transform (..., N) -> (..., n_fft // 2 + 1, T); noise of variance one has mean square one."""
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    return stft(wave, n_fft, n_fft // OVERLAP).abs() / window.square().sum().sqrt()


def fitting_sizes(sizes: Sequence[int], samples: int) -> list[int]:
    """The transforms that a sound of so many samples can be mirrored for; the smallest power of two, if none fits."""
    return [n for n in sizes if n // 2 < samples] or [2 ** max(int(math.log2(max(samples, 2))), 2)]


def multiscale_spectral(x: Tensor, y: Tensor, sizes: Sequence[int], linear: float = 1.0) -> Tensor:
    """Distance of sounds (B, C, N) by magnitudes S of several transforms, (B,): 0 for equal magnitudes.

    It is the mean over the transforms of linear * mean |S - S'| + mean |log S - log S'| (Engel et al. 2020,
    arXiv:2001.04643, equation 4, with means for sums). It does not depend on the signs of the sounds.

    Args:
        x: sounds.
        y: other sounds.
        sizes: samples of each transform's window; those that are too long for the sounds are left out.
        linear: weight of the first term.
    """
    total = x.new_zeros(len(x))
    fitting = fitting_sizes(sizes, x.shape[-1])
    for n_fft in fitting:
        s, t = magnitudes(x, n_fft), magnitudes(y, n_fft)
        gap = linear * (s - t).abs() + ((s + FLOOR).log() - (t + FLOOR).log()).abs()
        total = total + gap.flatten(1).mean(1)
    return total / len(fitting)
