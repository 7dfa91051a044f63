"""Random changes of speech that keep its words, for recognition of unheard voices; they act on power spectra."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.nn.blocks.mfcc import mel_filters


@dataclass(frozen=True)
class SpeechChanges:
    """Random changes of each recording.

    Args:
        tract: frequencies are multiplied or divided by up to 1 + this, as for another length of the vocal tract (Jaitly
            & Hinton 2013). Voices differ in their resonances.
        ends: the beginning and the end move by up to this share of the length: they are found by loudness only.
        bend: one half is spoken faster than the other; below 1 / pi, so that time never turns back.
        tilt: of a smooth random equaliser, in nats of power: microphones and rooms differ.
        noise: the quietest noise and the loudest, in decibels below the loudest band.
        bands: the widest of two masks over frequencies, as a share (SpecAugment, Park et al. 2019, arXiv:1904.08779).
        frames: the widest mask over time, as a share.
    """

    tract: float = 0.25
    ends: float = 0.15
    bend: float = 0.15
    tilt: float = 1.0
    noise: tuple[float, float] = (39.0, 13.0)
    bands: float = 0.25
    frames: float = 0.2


def in_equal_time(spectra: Tensor, lengths: Tensor, frames: int, ends: Tensor, bend: Tensor) -> Tensor:
    """Stretch recordings to one number of frames by linear interpolation, so that the tempo has no effect.

    Args:
        spectra: power (B, T, F).
        lengths: frames of each recording (B,).
        frames: of the result.
        ends: where to begin and end, as shares of the length (B, 2); beyond a recording its last frame is repeated.
        bend: of time, u + bend sin(pi u) for u from 0 to 1, (B,).

    Returns:
        (B, frames, F).
    """
    u = torch.linspace(0, 1, frames)
    u = u + bend[:, None] * (math.pi * u).sin()  # (B, frames)
    last = (lengths - 1).to(u)[:, None]
    place = (ends[:, :1] + u * (ends[:, 1:] - ends[:, :1])).clamp(0, 1) * last
    before, row = place.floor().long(), torch.arange(len(u))[:, None]
    after = torch.minimum(before + 1, last.long())
    share = (place - before)[..., None]
    return spectra[row, before] * (1 - share) + spectra[row, after] * share


def plain_bands(bands: Tensor, decibels: float = 30.0) -> Tensor:
    """Power in bands (B, bands, T) -> logarithms above a floor, without the mean of each band, of variance one.

    Args:
        bands: of the mel scale.
        decibels: of the floor, below the loudest band of each recording.
    """
    return standardised_bands(bands + bands.amax((1, 2), keepdim=True) * 10 ** (-decibels / 10))


def standardised_bands(bands: Tensor) -> Tensor:
    """Logarithms of power (B, bands, T) without the mean of each band, divided by the deviation of the recording.

    A constant filter and the loudness have no effect.
    """
    logs = bands.clamp(min=1e-30).log()
    logs = logs - logs.mean(2, keepdim=True)
    return logs / logs.std((1, 2), keepdim=True).clamp(min=1e-3)


class SpeechBands:
    """Spectra of recordings -> images of their bands of the mel scale, as they are or changed at random.

    Args:
        n_fft: of the spectra.
        sample_rate: in Hz.
        bands: of the mel scale.
        frames: of the images.
        changes: of the training.
    """

    def __init__(
        self, n_fft: int, sample_rate: int, *, bands: int, frames: int, changes: SpeechChanges | None = None
    ) -> None:
        self.frames, self.changes = frames, changes or SpeechChanges()
        most = math.log1p(self.changes.tract)
        warps = torch.linspace(-most, most, 19).exp().tolist()
        self.filters = torch.stack([mel_filters(bands, n_fft, sample_rate, warp=w).float() for w in warps])
        self.plain_filters = mel_filters(bands, n_fft, sample_rate).float()  # (bands, F)

    def plain(self, spectra: Tensor, lengths: Tensor) -> Tensor:
        """Spectra (B, T, F) of recordings with lengths (B,) -> (B, bands, frames)."""
        n = len(spectra)
        ends, bend = torch.tensor([0.0, 1.0]).expand(n, 2), torch.zeros(n)
        return plain_bands(self.plain_filters @ in_equal_time(spectra, lengths, self.frames, ends, bend).mT)

    def changed(self, spectra: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Spectra (B, T, F) of recordings with lengths (B,) -> randomly changed (B, bands, frames)."""
        to, n = self.changes, len(spectra)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        ends = torch.tensor([0.0, 1.0]) + to.ends * (2 * uniform(n, 2) - 1)
        spectra = in_equal_time(spectra, lengths, self.frames, ends, to.bend * (2 * uniform(n) - 1))
        which = torch.randint(len(self.filters), (n,), generator=generator)
        bands = self.filters[which] @ spectra.mT  # (B, bands, frames)
        k = torch.linspace(0, 1, bands.shape[1])
        waves = (math.pi * torch.arange(1, 4)[:, None] * k).cos()  # (3, bands)
        bands = bands * (to.tilt * (2 * uniform(n, 3) - 1) @ waves).exp()[..., None]
        quiet, loud = to.noise
        level = bands.amax((1, 2), keepdim=True) * 10 ** (-(loud + (quiet - loud) * uniform(n, 1, 1)) / 10)
        slope = (4 * (uniform(n, 1, 1) - 0.5) * (k[:, None] - 0.5)).exp()
        grain = (0.6 * torch.randn(bands.shape, generator=generator) - 0.18).exp()  # of mean one
        x = standardised_bands(bands + level * slope * grain)
        for axis, most in ((1, to.bands), (1, to.bands), (2, to.frames)):
            x = masked(x, axis, most, generator)
        return x


def masked(x: Tensor, axis: int, most: float, generator: torch.Generator) -> Tensor:
    """Set an interval of an axis to zero in each of (B, bands, T), at most a share `most` of it."""
    size = x.shape[axis]
    width = most * size * torch.rand(len(x), 1, generator=generator)
    start = ((size - width) * torch.rand(len(x), 1, generator=generator)).floor()
    at = torch.arange(size)
    hidden = (at >= start) & (at < start + width)  # (B, size)
    return x.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None], 0)
