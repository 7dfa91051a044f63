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
from zoo.data.listing import list_folder
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
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(steps, transpose, voices, steps_per_beat, 90, batch_size, seed)
        self.path = user_path(path)

    def read(self) -> tuple[Pieces, Pieces, Pieces]:
        """Read all files.

        Raises:
            ConfigError: the extra is not installed.
            DataError: no such folder, fewer than three files, or an unreadable one.
        """
        return read_folder(self.path, lambda file: read_midi(file, self.voices, self.steps_per_beat))


def read_folder(root: Path, read: Callable[[Path], Any]) -> tuple[list, list, list]:
    """Read MIDI files, split by the CRC-32 of their paths: a tenth each for validation and testing, at least one.

    Raises:
        DataError: no such folder, or fewer than three files.
    """
    if not root.is_dir():
        raise DataError(f"data.path={root}: not a folder. Give one with MIDI files.")
    found = list_folder(root, lambda file: Path(file).suffix.lower() in SUFFIXES)
    found.report(f"data.path={root}", f"MIDI files ({' '.join(SUFFIXES)})")
    files = found.files
    if len(files) < 3:
        raise DataError(f"data.path={root}: {counted(len(files), 'file')}, too few to split. Give at least 3.")
    order = sorted(files, key=lambda file: (crc32(file.encode()), file))
    share = max(len(order) // 10, 1)
    parts = order[2 * share :], order[:share], order[share : 2 * share]
    train, val, test = ([read(root / file) for file in sorted(part)] for part in parts)
    return train, val, test
