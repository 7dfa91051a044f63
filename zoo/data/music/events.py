"""Windows of events of music: MIDI files, and chorales."""

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Tokens
from zoo.data.listing import OnError
from zoo.data.music.chorales import Chorales
from zoo.data.music.event import DRUMS, PITCHES, TimedNote, events_space, to_events
from zoo.data.music.midi import read_folder
from zoo.data.music.midi_file import held_notes
from zoo.data.music.midi_notes import read_notes
from zoo.data.music.voices import Pieces
from zoo.data.text.datamodule import Texts, TokenWindows

Notes = list[TimedNote]


class EventData(TokenWindows):
    """Pieces of music as windows of events; a subclass provides `read_pieces`.

    Training has each piece in every transposition up to `transpose` semitones that all its notes have; drums stay.

    Args:
        context: events of a window.
        steps_per_beat: of the grid.
        transpose: largest number of semitones, up or down; 0 is off.
        tempo: beats per minute, at which samples are played.
        batch_size: windows per batch.
        seed: seed of the order and offsets of windows.
    """

    def __init__(
        self, context: int, steps_per_beat: int, transpose: int, tempo: int, batch_size: int, seed: int
    ) -> None:
        super().__init__(context, "event", batch_size, seed)
        self.steps_per_beat, self.transpose, self.tempo = steps_per_beat, transpose, tempo

    def read_pieces(self) -> tuple[list[Notes], list[Notes], list[Notes]]:
        """Read the notes of the training, validation and test pieces."""
        raise NotImplementedError

    def read(self) -> Texts:
        """Pieces as texts of events."""
        train, val, test = self.read_pieces()
        shifts = range(-self.transpose, self.transpose + 1)
        moved = [found for piece in train for shift in shifts if (found := transposed(piece, shift)) is not None]
        for name, part in (("training", moved), ("validation", val), ("test", test)):
            if not any(part):
                raise DataError(f"data={self.registered_name}: the {name} pieces have no notes. Give more music.")
        return [to_events(p) for p in moved], [to_events(p) for p in val], [to_events(p) for p in test]

    def space_of(self, text: Tokens) -> Space:
        """Events on their grid."""
        return events_space(text.length, self.steps_per_beat, self.tempo)


def transposed(notes: Notes, semitones: int) -> Notes | None:
    """Notes that are moved by so many semitones, except for drums; None if a pitch leaves the range of MIDI."""
    moved = [note if note.part == DRUMS else note._replace(pitch=note.pitch + semitones) for note in notes]
    return moved if all(0 <= note.pitch < PITCHES for note in moved) else None


@register("data", "midi_events")
class MidiEvents(EventData):
    """Your own polyphonic music as events: data=midi_events data.path=FOLDER. Needs the extra `music`.

    Any number of notes may sound, in up to 15 parts and drums, with velocities. Files are split by a hash of their
    paths: the lowest tenth is for validation, the next tenth for testing.

    Args:
        path: the folder; its sub-folders are read too.
        context: events of a window.
        steps_per_beat: of the grid; the ticks of a beat of your files keep all times.
        transpose: largest transposition of training pieces in semitones; 0 is off.
        tempo: beats per minute, at which samples are played.
        on_error: "raise" refuses a folder with files that cannot be read, and names them; "skip" leaves them out.
        batch_size: windows per batch.
        seed: seed of the order and offsets of windows.
    """

    def __init__(
        self,
        *,
        path: str,
        context: PositiveInt = 256,
        steps_per_beat: PositiveInt = 24,
        transpose: Count = 0,
        tempo: PositiveInt = 120,
        on_error: OnError = "raise",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, steps_per_beat, transpose, tempo, batch_size, seed)
        self.path, self.on_error = user_path(path), on_error

    def read_pieces(self) -> tuple[list[Notes], list[Notes], list[Notes]]:
        """Read all files.

        Raises:
            ConfigError: the extra is not installed.
            DataError: no such folder, fewer than three files, or an unreadable one.
        """
        return read_folder(self.path, lambda file: read_notes(file, self.steps_per_beat), self.on_error)


@register("data", "chorale_events")
class ChoraleEvents(EventData):
    """Bach's chorales as events, a part for each voice; see `chorales` for the file and the split.

    Equal pitches in a row are one note, as the file does not separate them. Steps with fewer than four voices are
    rests, as in `chorales`.

    Args:
        path: folder that contains the file; null is `$ZOO_DATA`, else `~/.cache/zoo`.
        context: events of a window.
        transpose: largest transposition of training pieces in semitones; 0 is off.
        batch_size: windows per batch.
        seed: seed of the order and offsets of windows.
    """

    licence = "public domain"

    def __init__(
        self,
        *,
        path: str | None = None,
        context: PositiveInt = 256,
        transpose: Count = 5,
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, 4, transpose, 90, batch_size, seed)
        self.path = path

    def read_pieces(self) -> tuple[list[Notes], list[Notes], list[Notes]]:
        """Read the file.

        Raises:
            DataError: no such file, or other contents.
        """
        train, val, test = Chorales(path=self.path).read()
        return notes_of(train), notes_of(val), notes_of(test)


def notes_of(pieces: Pieces) -> list[Notes]:
    """Pieces of voices on a grid (S, V) as notes."""
    return [sorted(TimedNote(*found) for found in held_notes(piece)) for piece in pieces]
