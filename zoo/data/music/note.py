"""Notes of voices as tokens, and their notation as text.

A step of four voices is written `sD5 aA4 tF4 bD3` and a line feed: the voice (soprano, alto, tenor, bass), then the
pitch, or `-` for a rest. C4 is middle C, and A4 has 440 Hz.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Voices
from zoo.data.text.tokenizers.base import Tokenizer, dumps

LETTERS = "satb"
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
LOWEST, KEYS = 21, 88  # the keys of a piano, as MIDI numbers them
SIZE = KEYS + 1  # tokens of a voice: its pitches and a rest
REST = -1  # in place of a pitch


def pitch_name(pitch: int) -> str:
    """Name of a MIDI pitch: 60 is C4."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


@register("tokenizer", "note")
class Note(Tokenizer):
    """One token for each pitch of a piano in each voice, and for a rest of each voice.

    Args:
        voices: number of voices, at most four.

    Raises:
        DataError: more than four voices.
    """

    prose, gap = False, " "

    def __init__(self, *, voices: PositiveInt = 4) -> None:
        if not 1 <= voices <= len(LETTERS):
            raise DataError(f"voices={voices}: not from 1 to {len(LETTERS)}. Choose a number in this range.")
        self.voices = voices
        pitches = [pitch_name(LOWEST + key) for key in range(KEYS)]
        self.words = [f"{letter}{name}" for letter in LETTERS[:voices] for name in [*pitches, "-"]]
        self.ids = {word: i for i, word in enumerate(self.words)}
        last = SIZE * (voices - 1)
        self.pieces = [f"{word}{chr(10) if i >= last else ' '}".encode() for i, word in enumerate(self.words)] + [b""]

    def fit(self, texts: Sequence[str]) -> "Note":
        """The vocabulary does not depend on the texts."""
        return self

    def encode(self, text: str) -> list[int]:
        """Encode notes that are separated by white space.

        Raises:
            DataError: a word that is not a note.
        """
        words = text.split()
        for word in words:
            if word not in self.ids:
                raise DataError(
                    f"text={word[:40]!r}: not a note. Write a voice ({' '.join(LETTERS[: self.voices])}) and a pitch "
                    f"from {pitch_name(LOWEST)} to {pitch_name(LOWEST + KEYS - 1)}, such as {self.words[48]}."
                )
        return [self.ids[word] for word in words]

    def state(self) -> int:
        """Number of voices."""
        return self.voices

    @classmethod
    def load(cls, state: int) -> "Note":
        """Restore from the number of voices."""
        if type(state) is not int:
            raise DataError("Damaged tokenizer: its voices are not a number.")
        return cls(voices=state)


def to_tokens(frames: Tensor) -> Tensor:
    """Pitches over time (S, V), `REST` for none -> tokens (S V,).

    Raises:
        DataError: a pitch that a piano does not have.
    """
    keys = frames - LOWEST
    sounding = frames != REST
    if bool((sounding & ((keys < 0) | (keys >= KEYS))).any()):
        raise DataError(
            f"pitches={int(frames[sounding].min())}..{int(frames.max())}: a piano has {LOWEST} to {LOWEST + KEYS - 1}. "
            "Transpose the music."
        )
    voice = torch.arange(frames.shape[1]) * SIZE
    return (torch.where(sounding, keys, KEYS) + voice).flatten()


def to_frames(tokens: Tensor, voices: int) -> Tensor:
    """Inverse of `to_tokens`, up to the first token that is not a note (S, V).

    A token in the place of another voice gives that voice its pitch. An incomplete last step is left out.
    """
    ends = (tokens < 0) | (tokens >= SIZE * voices)
    length = int(ends.nonzero()[0]) if bool(ends.any()) else len(tokens)
    keys = tokens[: length - length % voices].view(-1, voices) % SIZE
    return torch.where(keys == KEYS, REST, keys + LOWEST)


def voices_space(steps: int, voices: int, steps_per_beat: int, tempo: int) -> Voices:
    """Space of windows of so many steps, with its tokenizer."""
    tokenizer = Note(voices=voices)
    return Voices(steps * voices, tokenizer.vocab_size, dumps(tokenizer), voices, steps_per_beat, tempo)
