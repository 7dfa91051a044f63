"""Folders of MIDI files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from zoo.core.cache import user_path
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.data.listing import OnError, list_folder, read_files
from zoo.data.music.midi_file import read_midi
from zoo.data.music.voices import Pieces, VoiceData

SUFFIXES = (".mid", ".midi")


@register("data", "midi")
class Midi(VoiceData):
    """Your own music: data=midi data.path=FOLDER, with MIDI files in it and its sub-folders. Needs the extra `music`.

    Files become pitches of voices on a grid, see `zoo.data.music.midi_file.read_midi`. They are split by a hash of
    their paths: the lowest tenth is for validation, the next tenth for testing.

    Args:
        path: the folder.
        voices: number of voices, at most four.
        steps_per_beat: of the grid.
        on_error: "raise" refuses a folder with files that cannot be read, and names them; "skip" leaves them out.
        steps: of a window.
        transpose: largest transposition of training pieces in semitones; 0 is off.
        batch_size: windows per batch.
        seed: seed of the order, shifts and transpositions.
    """

    def __init__(
        self,
        *,
        path: str,
        voices: PositiveInt = 4,
        steps_per_beat: PositiveInt = 4,
        steps: PositiveInt = 64,
        transpose: Count = 6,
        on_error: OnError = "raise",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(steps, transpose, voices, steps_per_beat, 90, batch_size, seed)
        self.path, self.on_error = user_path(path), on_error

    def read(self) -> tuple[Pieces, Pieces, Pieces]:
        """Read all files.

        Raises:
            ConfigError: the extra is not installed.
            DataError: no such folder, fewer than three files, or an unreadable one.
        """
        return read_folder(self.path, lambda file: read_midi(file, self.voices, self.steps_per_beat), self.on_error)


def read_folder(root: Path, read: Callable[[Path], Any], on_error: str) -> tuple[list, list, list]:
    """Read MIDI files, split by the CRC-32 of their paths: a tenth each for validation and testing, at least one.

    Raises:
        DataError: no such folder, fewer than three files, or an unreadable one unless `on_error` is "skip".
    """
    if not root.is_dir():
        raise DataError(f"data.path={root}: not a folder. Give one with MIDI files.")
    found = list_folder(root, lambda file: Path(file).suffix.lower() in SUFFIXES)
    found.report(f"data.path={root}", f"MIDI files ({' '.join(SUFFIXES)})")
    pieces = read_files(root, sorted(found.files), lambda file: read(root / file), "file", on_error)
    if len(pieces) < 3:
        raise DataError(f"data.path={root}: {counted(len(pieces), 'file')}, too few to split. Give at least 3.")
    order = sorted(pieces, key=lambda file: (crc32(file.encode()), file))
    share = max(len(order) // 10, 1)
    parts = order[2 * share :], order[:share], order[share : 2 * share]
    train, val, test = ([pieces[file] for file in sorted(part)] for part in parts)
    return train, val, test
