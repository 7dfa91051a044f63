"""Rules of voice leading that music breaks: parallel fifths and octaves, and voices that cross."""

from collections.abc import Iterable
from itertools import combinations

import torch
from torch import Tensor

FIFTH, OCTAVE = 7, 12  # semitones

# The rules of counterpoint; Fux 1725 (Gradus ad Parnassum). An interval of several octaves counts as that within one.


def transitions(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbouring steps of music (S, V) in which a note changes and all voices sound: before and after, (T, V) each.

    Args:
        frames: MIDI pitches, negative where a voice does not sound.
    """
    before, after = frames[:-1], frames[1:]
    kept = (before >= 0).all(1) & (after >= 0).all(1) & (before != after).any(1)
    return before[kept], after[kept]


def voice_leading(pieces: Iterable[Tensor]) -> dict[str, float]:
    """Numbers of broken rules in 100 transitions of pieces, int (S, V) each with the highest voice first.

    - `parallel_fifths`: pairs of voices that both move in one direction, from a fifth to a fifth;
    - `parallel_octaves`: the same of octaves and unisons;
    - `voice_crossings`: neighbouring voices of which the upper one is below the other, after the transition.

    NaN for pieces without a transition.
    """
    found, total = dict.fromkeys(("parallel_fifths", "parallel_octaves", "voice_crossings"), 0), 0
    for frames in pieces:
        before, after = transitions(frames)
        total += len(before)
        found["voice_crossings"] += int((after[:, :-1] < after[:, 1:]).sum())
        for upper, lower in combinations(range(frames.shape[1]), 2):
            moves = (after - before)[:, [upper, lower]].sign()
            together = (moves[:, 0] == moves[:, 1]) & (moves[:, 0] != 0)
            first, second = ((part[:, upper] - part[:, lower]).abs() for part in (before, after))
            for name, interval in (("parallel_fifths", FIFTH), ("parallel_octaves", 0)):
                same = (first % OCTAVE == interval) & (second % OCTAVE == interval)
                found[name] += int((same & together).sum())
    return {name: 100 * count / total if total else float("nan") for name, count in found.items()}


def shuffled_voices(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Music (S, V) whose notes of each step are in random voices, a set with known faults."""
    order = torch.rand(frames.shape, generator=generator).argsort(1)
    return frames.gather(1, order)
