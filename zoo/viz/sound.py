"""Sounds, and WAV files."""

import wave
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.io.atomic import atomic_replace

PAUSE = 0.5  # seconds between sounds that are joined


@dataclass(frozen=True)
class Sound:
    """A sound.

    Args:
        wave: float in [-1, 1], (C, N).
        rate: samples per second.
    """

    wave: Tensor
    rate: int


def joined(waves: list[Tensor], rate: int) -> Sound:
    """Sounds (C, N) one after another, with pauses."""
    pause = waves[0].new_zeros(waves[0].shape[0], round(PAUSE * rate))
    return Sound(torch.cat([part for wave in waves for part in (wave, pause)][:-1], 1), rate)


def save_wav(path: Path, sound: Sound) -> None:
    """Write a WAV file of 16 bits atomically; values outside [-1, 1] are clamped, and NaN becomes 0."""
    levels = (sound.wave.detach().float().cpu().nan_to_num(0.0).clamp(-1, 1) * (2**15 - 1)).round().to(torch.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as draft, wave.open(str(draft), "wb") as file:
        file.setnchannels(levels.shape[0])
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(levels.T.contiguous().numpy().tobytes())
