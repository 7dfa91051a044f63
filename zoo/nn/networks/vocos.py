"""Networks from mel spectrograms to waveforms, by an inverse Fourier transform."""

import math

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.spectral import istft

MAX_LOG = 5.0  # of magnitudes


class ConvNeXt1d(nn.Module):
    """x + a convolution over time in each channel, and a perceptron in each frame (Liu et al. 2022, arXiv:2201.03545).

    Args:
        width: channels D of (B, D, T).
        hidden: units of the perceptron.
        scale: initial factor of the sum's second term.
    """

    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.time = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.frame = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) -> (B, D, T)."""
        found = self.scale * self.frame(self.norm(self.time(x).transpose(1, 2)))
        return x + found.transpose(1, 2)


def inverse_transform(log_magnitude: Tensor, phase: Tensor, n_fft: int, hop: int, length: int) -> Tensor:
    """Waveform (B, length) of a spectrum in polar form, each (B, n_fft // 2 + 1, T), in at least single precision."""
    with torch.autocast(phase.device.type, enabled=False):
        magnitude = log_magnitude.float().clamp(max=MAX_LOG).exp()
        return istft(torch.polar(magnitude, phase.float()), n_fft, hop, length)


@register("waveform_decoder", "vocos")
class Vocos(FixedConstants):
    """Mel spectrograms (B, M, T) -> waveforms (B, samples): ConvNeXt blocks, and an inverse transform as head.

    All layers run at the rate of frames. The head predicts the logarithm of magnitudes, and phases as angles, which
    wrap around in the polar form (Siuzdak 2023, arXiv:2306.00814, section 3.3). Other than there, a phase is an angle
    plus the sum of the predicted advances so far. Convolutions give equal frames for a steady tone. Equal phases would
    then make a sound of period `hop`, whatever the pitch.

    Args:
        n_mels: bands M.
        samples: of the waveforms.
        n_fft: window of the head's transform.
        hop: samples between frames; T is 1 + samples // hop.
        width: channels.
        n_layers: blocks.
    """

    centre: Tensor

    def __init__(
        self,
        n_mels: int,
        samples: int,
        n_fft: int,
        hop: int,
        *,
        width: PositiveInt = 128,
        n_layers: PositiveInt = 4,
    ) -> None:
        super().__init__()
        self.samples, self.n_fft, self.hop = samples, n_fft, hop
        self.enter = nn.Conv1d(n_mels, width, 7, padding=3)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(ConvNeXt1d(width, 3 * width, 1 / n_layers) for _ in range(n_layers)))
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3 * (n_fft // 2 + 1))
        turns = torch.arange(n_fft // 2 + 1) * hop % n_fft / n_fft  # whole turns would cost the sum its precision
        centre = 2 * math.pi * turns  # advance of the middle of each bin
        self.register_buffer("centre", centre[:, None], persistent=False)
        nn.init.trunc_normal_(self.head.weight, std=1 / math.sqrt(width))

    def polar(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of magnitudes, and phases in radians, each (B, n_fft // 2 + 1, T)."""
        x = self.norm(self.enter(mel).transpose(1, 2)).transpose(1, 2)
        x = self.last_norm(self.blocks(x).transpose(1, 2))
        log_magnitude, angle, advance = self.head(x).transpose(1, 2).float().chunk(3, dim=1)
        return log_magnitude, angle + (self.centre + advance).cumsum(2)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, T) -> (B, samples)."""
        return inverse_transform(*self.polar(mel), self.n_fft, self.hop, self.samples)
