"""Folders of sound files."""

from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.audio.audio_file import SUFFIXES, normalised, read_audio, resample
from zoo.data.audio.segments import Segments, cut
from zoo.data.base import Split
from zoo.data.listing import OnError, list_folder, read_files


@register("data", "sounds")
class Sounds(Segments):
    """Your own sounds: data=sounds data.path=FOLDER. Sub-folders are classes.

    WAV files need nothing else; FLAC, OGG and MP3 need the extra `audio`. Channels are averaged, the samples per second
    changed to `sample_rate`, and files are cut into adjacent segments of `samples`, the last one filled with silence.
    Files are split by a hash of their paths: the lowest tenth is for validation, the next tenth for testing.

    Args:
        path: the folder.
        sample_rate: in Hz.
        samples: of a segment.
        on_error: "raise" refuses a folder with files that cannot be read, and names them; "skip" leaves them out.
        loudness: root mean square of a file in decibels below full scale, such as -20; null keeps it.
        batch_size: segments per batch.
        seed: seed of the training order.

    Raises:
        DataError: no such folder, or fewer than three files.
    """

    def __init__(
        self,
        *,
        path: str,
        sample_rate: PositiveInt = 8000,
        samples: PositiveInt = 4096,
        loudness: float | None = -20.0,
        on_error: OnError = "raise",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        self.path, self.loudness, self.on_error = user_path(path), loudness, on_error
        if not self.path.is_dir():
            raise DataError(f"data.path={self.path}: not a folder. Give one with sound files.")
        found = list_folder(self.path, lambda file: Path(file).suffix.lower() in SUFFIXES)
        found.report(f"data.path={self.path}", f"sounds ({' '.join(SUFFIXES)})")
        if len(found.files) < 3:
            for file in sorted(found.files):
                self.sound(file)  # a damaged file is the better message
            few = counted(len(found.files), "sound")
            raise DataError(f"data.path={self.path}: {few}, too few to split. Give at least 3.")
        self.files = sorted(found.files)
        folders = sorted({file.split("/")[0] for file in self.files})
        labelled = all("/" in file for file in self.files) and len(folders) > 1
        self.classes = folders if labelled else []
        super().__init__(samples, sample_rate, len(self.classes), batch_size, seed)

    def read(self) -> tuple[Split, Split, Split]:
        """Read all files.

        Raises:
            ConfigError: a file needs the extra `audio`, which is not installed.
            DataError: an unreadable file, or too few that are readable.
        """
        found = read_files(self.path, self.files, self.segments, "sound", self.on_error)
        if len(found) < 3:
            raise DataError(f"data.path={self.path}: {counted(len(found), 'sound')} can be read. Give at least 3.")
        order = sorted(found, key=lambda file: (crc32(file.encode()), file))
        share = max(len(order) // 10, 1)
        parts = [
            self.joined({file: found[file] for file in sorted(part)})
            for part in (order[2 * share :], order[:share], order[share : 2 * share])
        ]
        return parts[0], parts[1], parts[2]

    def sound(self, file: str) -> tuple[Tensor, int]:
        """Read a file, see `read_audio`."""
        return read_audio(self.path / file, file)

    def segments(self, file: str) -> Tensor:
        """Read the segments of a file."""
        wave, rate = self.sound(file)
        mono = resample(wave.mean(0, keepdim=True), rate, self.sample_rate)
        return cut(normalised(mono, self.loudness)[0], self.samples)

    def joined(self, found: dict[str, Tensor]) -> Split:
        """Segments of files, and their labels."""
        labels = [
            self.classes.index(file.split("/")[0]) if self.classes else 0
            for file, segments in found.items()
            for _ in segments
        ]
        return torch.cat([*found.values()]), torch.tensor(labels)
