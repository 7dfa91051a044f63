"""Sounds of four kinds that are made by rule: notes, chords, drums and vowels."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from scipy.signal import lfilter
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.audio.audio_file import normalised
from zoo.data.audio.segments import Segments
from zoo.data.audio.synthesizer import mix
from zoo.data.base import Split
from zoo.data.loader import make_generator

KINDS = ("note", "chord", "drum", "vowel")
RATE = 8000
LOUDNESS = -20.0  # decibels below full scale
NOISE = 1e-3  # standard deviation
SIZES = (1200, 120, 120)  # of the splits
SHORTEST = 128  # samples, which hold a pulse of the lowest vowel
PITCHES = (48, 73)  # MIDI pitches of notes, and of the lowest note of a chord
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8), (0, 4, 7, 10))  # major, minor, diminished, augmented, seventh
FORMANTS = {  # the first three resonances of men's vowels in Hz (Peterson & Barney 1952, table II)
    "i": (270, 2290, 3010),
    "a": (730, 1090, 2440),
    "u": (300, 870, 2240),
    "ae": (660, 1720, 2410),
    "er": (490, 1350, 1690),
}
BANDWIDTHS = (80.0, 100.0, 140.0)  # of the resonances, in Hz


@register("data", "synthetic_sounds")
class SyntheticSounds(Segments):
    """Synthetic notes, chords, drums and vowels: the kind is the label.

    Notes and chords are sums of decaying partials in equal temperament. Drums are a falling sine or filtered noise that
    decay. Vowels are pulses through three resonances. All are 20 decibels below full scale, with a little noise.

    Args:
        samples: of a sound, 8,000 per second, at least 128.
        batch_size: sounds per batch.
        seed: seed of the training order; the sounds do not depend on it.
    """

    licence = "generated"

    def __init__(
        self, *, samples: Annotated[int, Ge(SHORTEST)] = 4096, batch_size: PositiveInt = 16, seed: int = 0
    ) -> None:
        super().__init__(samples, RATE, len(KINDS), batch_size, seed)

    def read(self) -> tuple[Split, Split, Split]:
        """Make 1,200, 120 and 120 sounds."""
        generator = make_generator(0)
        parts = [draw(n, self.samples, generator) for n in SIZES]
        return parts[0], parts[1], parts[2]


def draw(n: int, samples: int, generator: torch.Generator) -> Split:
    """Sounds (n, samples), and their kinds (n,), in turn."""
    labels = torch.arange(n) % len(KINDS)
    makers = (note, chord, drum, vowel)
    sounds = []
    for kind in labels.tolist():
        clean = makers[kind](samples, generator)
        noise = NOISE * torch.randn(samples, generator=generator)
        sounds.append(normalised((clean + noise)[None], LOUDNESS)[0])
    return torch.stack(sounds), labels


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A random number between two."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def whole(low: int, high: int, generator: torch.Generator) -> int:
    """A random whole number from `low` to `high` - 1."""
    return int(torch.randint(low, high, (), generator=generator))


def note(samples: int, generator: torch.Generator) -> Tensor:
    """One or two notes, one after the other, (N,)."""
    seconds, count = samples / RATE, whole(1, 3, generator)
    part = seconds / count
    return mix([(k * part, part, whole(*PITCHES, generator)) for k in range(count)], RATE, seconds)


def chord(samples: int, generator: torch.Generator) -> Tensor:
    """Three or four notes together, (N,)."""
    seconds, lowest = samples / RATE, whole(*PITCHES, generator)
    intervals = CHORDS[whole(0, len(CHORDS), generator)]
    return mix([(0.0, seconds, lowest + interval) for interval in intervals], RATE, seconds)


def drum(samples: int, generator: torch.Generator) -> Tensor:
    """One to three strokes of a bass drum, a snare or a cymbal at equal distances, (N,)."""
    count, kind = whole(1, 4, generator), whole(0, 3, generator)
    time = torch.arange(samples // count, dtype=torch.float64) / RATE
    hiss = torch.randn(len(time), generator=generator, dtype=torch.float64)
    high = torch.from_numpy(lfilter([1.0, -0.95], [1.0], hiss.numpy()))  # a difference lets high frequencies pass
    if kind == 0:
        low, drop = uniform(45, 70, generator), uniform(80, 150, generator)
        angle = low * time + drop / 30 * (1 - (-30 * time).exp())  # of a frequency that falls from low + drop to low
        stroke = (2 * math.pi * angle).sin() * (-12 * time).exp()
    elif kind == 1:
        tone = (2 * math.pi * uniform(160, 220, generator) * time).sin() * (-25 * time).exp()
        stroke = 0.6 * tone + 0.4 * high * (-uniform(15, 25, generator) * time).exp()
    else:
        stroke = high * (-uniform(20, 60, generator) * time).exp()
    rest = samples - count * len(time)
    return torch.cat([stroke.repeat(count), stroke.new_zeros(rest)]).float()


def vowel(samples: int, generator: torch.Generator) -> Tensor:
    """A vowel of gliding pitch, (N,)."""
    time = torch.arange(samples, dtype=torch.float64) / samples
    pitch = uniform(90, 220, generator) * (1 + uniform(-0.2, 0.2, generator) * time)  # Hz
    phase = pitch.cumsum(0) / RATE
    pulses = (phase.floor().diff(prepend=phase.new_zeros(1)) > 0).double()
    wave = lfilter([1.0], [1.0, -0.95], pulses.numpy())  # a glottal pulse falls off towards high frequencies
    name = list(FORMANTS)[whole(0, len(FORMANTS), generator)]
    scale = uniform(0.9, 1.15, generator)  # of the length of the vocal tract
    for frequency, bandwidth in zip(FORMANTS[name], BANDWIDTHS, strict=True):
        radius = math.exp(-math.pi * bandwidth / RATE)
        turn = 2 * math.pi * frequency * scale / RATE
        wave = lfilter([1.0], [1.0, -2 * radius * math.cos(turn), radius**2], wave)
    seconds = time * samples / RATE
    ends = (seconds / 0.03).clamp(max=1) * ((samples / RATE - seconds) / 0.05).clamp(0, 1)
    found = torch.from_numpy(wave) * ends
    return (found / found.abs().max()).float()
