"""Music in four voices that is drawn from a known distribution."""

import math
from functools import cache

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.data.loader import make_generator
from zoo.data.music.voices import Pieces, VoiceData

BEAT = 4  # steps that a chord lasts
CHORDS = ((0, 4, 7), (2, 5, 9), (5, 9, 12), (7, 11, 14), (9, 12, 16))  # I ii IV V vi, in semitones above the key
NEXT = (  # probabilities of the next chord
    (0.1, 0.2, 0.3, 0.3, 0.1),
    (0.0, 0.1, 0.0, 0.9, 0.0),
    (0.3, 0.2, 0.1, 0.4, 0.0),
    (0.7, 0.0, 0.0, 0.1, 0.2),
    (0.1, 0.4, 0.3, 0.2, 0.0),
)
KEYS = 12


@register("data", "synthetic_chorales")
class SyntheticChorales(VoiceData):
    """Synthetic music in four voices with a known distribution: chords by a Markov chain, in all keys.

    A piece has one of twelve keys and begins with the tonic. A chord lasts one beat. The bass has its root. The three
    upper voices have its notes in close position, and the highest of them is drawn for each chord. So
    `log_prob` is exact, and `entropy_rate` is the least that a model can reach, in nats per note.

    Args:
        steps: of a window; four are a beat.
        transpose: largest transposition of training pieces in semitones; 0 is off, because all keys are there.
        beats: of a piece.
        batch_size: windows per batch.
        seed: seed of the order and shifts; the music does not depend on it.
    """

    licence = "generated"

    def __init__(
        self,
        *,
        steps: PositiveInt = 64,
        transpose: Count = 0,
        beats: PositiveInt = 32,
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(steps, transpose, 4, BEAT, 90, batch_size, seed)
        self.beats = beats

    def read(self) -> tuple[Pieces, Pieces, Pieces]:
        """Draw 240, 40 and 40 pieces."""
        generator = make_generator(0)
        train, val, test = ([draw(self.beats, generator) for _ in range(n)] for n in (240, 40, 40))
        return train, val, test


def voicing(key: int, chord: int, top: int) -> Tensor:
    """Pitches of a chord (4,), the highest first: `top` is the number of the chord's note in the highest voice."""
    notes = [60 + key + note for note in CHORDS[chord]]
    upper = sorted(notes[: top + 1] + [note - 12 for note in notes[top + 1 :]], reverse=True)
    return torch.tensor([*upper, 36 + key + CHORDS[chord][0]])


def draw(beats: int, generator: torch.Generator) -> Tensor:
    """A piece (4 beats, 4)."""
    key = int(torch.randint(KEYS, (), generator=generator))
    chord, rows = 0, []
    for _ in range(beats):
        top = int(torch.randint(3, (), generator=generator))
        rows += [voicing(key, chord, top)] * BEAT
        chord = int(torch.multinomial(torch.tensor(NEXT[chord]), 1, generator=generator))
    return torch.stack(rows)


@cache
def chords_of(key: int) -> dict[tuple[int, ...], int]:
    """The chord of each of a key's voicings."""
    return {tuple(voicing(key, chord, top).tolist()): chord for chord in range(len(CHORDS)) for top in range(3)}


def log_prob(piece: Tensor) -> float:
    """Log-probability of a piece from its beginning (S, 4), in nats; -inf for what cannot occur."""
    totals = []
    for key in range(KEYS):
        known, before = chords_of(key), None
        total = -math.log(KEYS)
        for number, step in enumerate(tuple(row) for row in piece.tolist()):
            chord = known.get(step)
            held = number % BEAT and step != tuple(piece[number - 1].tolist())
            if chord is None or held or (before is None and chord != 0):
                total = -math.inf
                break
            if number % BEAT == 0:
                share = 1.0 if before is None else NEXT[before][chord]
                total += math.log(share / 3) if share else -math.inf
                before = chord
        totals.append(total)
    return float(torch.tensor(totals, dtype=torch.float64).logsumexp(0))


def entropy_rate() -> float:
    """Nats per note of a long piece: that of the chain and of the highest note, over the 16 notes of a beat."""
    chain = torch.tensor(NEXT, dtype=torch.float64)
    share = torch.linalg.matrix_power(chain, 1000)[0]  # stationary
    return float((share @ torch.special.entr(chain).sum(1) + math.log(3)) / (4 * BEAT))
