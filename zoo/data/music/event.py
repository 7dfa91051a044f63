"""Music as events: notes that begin and end, time that passes, and changes of part and loudness.

A text of events is `p1 v64 on60 t12 off60`: part 1, velocity 64, note 60 begins, twelve steps pass, it ends. A part and
a velocity hold until the next one; the first ones are `p0` and `v80`. Of events at one time, ends are before
beginnings.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.spaces import NoteEvents
from zoo.data.text.tokenizers.base import Tokenizer, dumps

PITCHES, VELOCITIES, PARTS = 128, 127, 16
SHIFTS = 96  # steps of the longest token of time
DRUMS = 9  # part, and MIDI channel
FIRST_PART, FIRST_VELOCITY = 0, 80


class TimedNote(NamedTuple):
    """A note: part from 0 to 15, begin and end in steps, MIDI pitch, velocity from 1 to 127."""

    part: int
    begin: int
    end: int
    pitch: int
    velocity: int = FIRST_VELOCITY


@register("tokenizer", "event")
class Event(Tokenizer):
    """One token for each event (Oore et al. 2018, arXiv:1808.03715), with parts, and with every velocity of MIDI.

    `onP` and `offP` begin and end the pitch P, `tN` is N steps from 1 to 96, `vV` a velocity, `pK` a part.
    """

    prose, gap = False, " "

    def __init__(self) -> None:
        self.words = [
            *(f"on{pitch}" for pitch in range(PITCHES)),
            *(f"off{pitch}" for pitch in range(PITCHES)),
            *(f"t{steps}" for steps in range(1, SHIFTS + 1)),
            *(f"v{velocity}" for velocity in range(1, VELOCITIES + 1)),
            *(f"p{part}" for part in range(PARTS)),
        ]
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.pieces = [f"{word} ".encode() for word in self.words] + [b""]

    def fit(self, texts: Sequence[str]) -> "Event":
        """The vocabulary does not depend on the texts."""
        return self

    def encode(self, text: str) -> list[int]:
        """Encode events that are separated by white space.

        Raises:
            DataError: a word that is not an event.
        """
        words = text.split()
        for word in words:
            if word not in self.ids:
                raise DataError(
                    f"text={word[:40]!r}: not an event. Write on60, off60, t1 to t{SHIFTS}, v1 to v{VELOCITIES}, or p0 "
                    f"to p{PARTS - 1}."
                )
        return [self.ids[word] for word in words]

    def state(self) -> None:
        """Nothing: the vocabulary is fixed."""

    @classmethod
    def load(cls, state: None) -> "Event":
        """The vocabulary is fixed.

        Raises:
            DataError: a state of another tokenizer.
        """
        if state is not None:
            raise DataError("Damaged tokenizer: events have no state.")
        return cls()


def to_events(notes: Iterable[TimedNote]) -> str:
    """Notes in any order as a text of events; the notation of equal sets of notes is equal.

    Raises:
        DataError: a number that is out of range, or a pitch that sounds twice at one time in one part.
    """
    changes = list[tuple[int, bool, int, int, int]]()  # time, whether a note begins, part, pitch, velocity
    until = dict[tuple[int, int], int]()
    for note in sorted(notes):
        part, begin, end, pitch, velocity = note
        fits = 0 <= part < PARTS and 0 <= begin < end and 0 <= pitch < PITCHES and 1 <= velocity <= VELOCITIES
        if not fits or begin < until.get((part, pitch), 0):
            raise DataError(f"{note}: out of range, or its pitch sounds already. Give each pitch of a part once.")
        until[part, pitch] = end
        changes += [(begin, True, part, pitch, velocity), (end, False, part, pitch, velocity)]
    words, now, part_now, velocity_now = list[str](), 0, FIRST_PART, FIRST_VELOCITY
    for time, begins, part, pitch, velocity in sorted(changes):
        while time > now:
            step = min(time - now, SHIFTS)
            words.append(f"t{step}")
            now += step
        if part != part_now:
            words.append(f"p{part}")
            part_now = part
        if begins and velocity != velocity_now:
            words.append(f"v{velocity}")
            velocity_now = velocity
        words.append(f"{'on' if begins else 'off'}{pitch}")
    return " ".join(words)


def to_notes(text: str) -> list[TimedNote]:
    """Notes of a text of events, sorted: the inverse of `to_events`.

    Every text has a meaning. A pitch that begins again ends first, one that ends without sounding is ignored, and at
    the end of the text all notes end. Notes of no duration are left out.

    Raises:
        DataError: a word that is not an event.
    """
    notes, sounding = list[TimedNote](), dict[tuple[int, int], tuple[int, int]]()
    now, part, velocity = 0, FIRST_PART, FIRST_VELOCITY

    def finish(key: tuple[int, int]) -> None:
        begin, loud = sounding.pop(key)
        if now > begin:
            notes.append(TimedNote(key[0], begin, now, key[1], loud))

    words = text.split()
    Event().encode(text)  # checks the words
    for word in words:
        kind = word.rstrip("0123456789")
        number = int(word[len(kind) :])
        if kind == "t":
            now += number
        elif kind == "p":
            part = number
        elif kind == "v":
            velocity = number
        else:
            if (part, number) in sounding:
                finish((part, number))
            if kind == "on":
                sounding[part, number] = now, velocity
    for key in sorted(sounding):
        finish(key)
    return sorted(notes)


def events_space(length: int, steps_per_beat: int, tempo: int) -> NoteEvents:
    """Space of windows of so many events, with its tokenizer."""
    tokenizer = Event()
    return NoteEvents(length, tokenizer.vocab_size, dumps(tokenizer), steps_per_beat, tempo)
