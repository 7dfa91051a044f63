"""Additive synthesis of notes (Risset & Mathews 1969, Physics Today 22)."""

import math

import torch
from torch import Tensor

PARTIALS = (1.0, 0.5, 0.25, 0.12, 0.06)  # amplitudes of a tone's frequency and its multiples
ATTACK, RELEASE = 0.01, 0.05  # seconds
DECAY = 1.5  # of the amplitude, per second: exp(-DECAY t)


def hertz(pitch: int | float) -> float:
    """Frequency of a MIDI pitch in equal temperament: 69 is 440 Hz."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def tone(frequency: float, seconds: float, rate: int) -> Tensor:
    """A tone of five partials that begins softly, decays and ends softly: float32 (N,) within [-1, 1].

    Partials from half of the sample rate on are left out, as they would be heard as other frequencies.

    Args:
        frequency: in Hz.
        seconds: duration.
        rate: samples per second.
    """
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    wave = torch.zeros_like(time)
    for number, amplitude in enumerate(PARTIALS, 1):
        if number * frequency < rate / 2:
            wave += amplitude * torch.sin(2 * math.pi * number * frequency * time)
    envelope = (time / ATTACK).clamp(max=1) * ((seconds - time) / RELEASE).clamp(0, 1) * torch.exp(-DECAY * time)
    return (wave * envelope / sum(PARTIALS)).float()


def mix(notes: list[tuple[float, float, int]], rate: int, seconds: float) -> Tensor:
    """Notes at their times, added up: float32 (N,), scaled down where that leaves [-1, 1].

    Args:
        notes: begin in seconds, duration in seconds, MIDI pitch.
        rate: samples per second.
        seconds: duration of the whole.
    """
    wave = torch.zeros(round(seconds * rate))
    for begin, duration, pitch in notes:
        start = round(begin * rate)
        sound = tone(hertz(pitch), duration, rate)[: len(wave) - start]
        wave[start : start + len(sound)] += sound
    return wave / max(1.0, float(wave.abs().max())) if len(wave) else wave
