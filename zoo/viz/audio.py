"""Sounds as spectrograms, and as sound."""

import math

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Audio
from zoo.nn.blocks.spectral import stft
from zoo.viz import images
from zoo.viz.render import Renderer
from zoo.viz.sound import Sound, joined

N_FFT = 256
FRAMES = 128  # most columns of a picture
RANGE = 80.0  # decibels from black to white; white is the loudest of the picture


@register("renderer", "audio")
class AudioRenderer(Renderer):
    """Spectrograms: time across, frequency upwards, brightness in decibels."""

    n_samples, per_page, has_singles = 4, 256, True
    formats = (".wav",)
    space: Audio

    def single(self, x: Tensor) -> images.Picture:
        """The spectrogram of one sound (C, N)."""
        return images.coloured(spectrogram(x[None])[0])

    def render(self, x: Tensor, columns: int | None = None) -> images.Picture:
        """Spectrograms (B, C, N) in rows."""
        pictures = [torch.from_numpy(images.coloured(level)) for level in spectrogram(x)]
        return images.grid(torch.stack(pictures).permute(0, 3, 1, 2) / 255, columns)

    def compare(self, x: Tensor, y: Tensor) -> images.Picture:
        """Sounds above their reconstructions."""
        pictures = [torch.stack([torch.from_numpy(images.coloured(s)) for s in spectrogram(part)]) for part in (x, y)]
        first, second = (picture.permute(0, 3, 1, 2) / 255 for picture in pictures)
        return images.comparison_grid(first, second)

    def sound(self, x: Tensor) -> Sound:
        """The sounds (B, C, N), one after another."""
        return joined(list(x.detach().float().cpu()), self.space.sample_rate)


def spectrogram(x: Tensor) -> Tensor:
    """Sounds (B, C, N) -> levels in [0, 1], (B, F, T), low frequencies at the bottom; the loudest sound has 1."""
    mono = x.detach().float().cpu().mean(1).nan_to_num(0.0)
    n_fft = min(N_FFT, 2 ** int(math.log2(max(mono.shape[1], 4))) // 2)
    hop = max(n_fft // 4, -(-mono.shape[1] // FRAMES))
    decibels = 20 * stft(mono, n_fft, hop).abs().clamp(min=1e-8).log10()
    return ((decibels - decibels.max()) / RANGE + 1).clamp(0, 1).flip(1)
