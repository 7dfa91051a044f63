"""Folders of sound files."""

from pathlib import Path
from zlib import crc32

import torch

from zoo.core.cache import user_path
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.audio.audio_file import SUFFIXES, normalised, read_audio, resample
from zoo.data.audio.segments import Segments, cut
from zoo.data.base import Split
from zoo.data.listing import list_folder


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
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        self.path, self.loudness = user_path(path), loudness
        if not self.path.is_dir():
            raise DataError(f"data.path={self.path}: not a folder. Give one with sound files.")
        found = list_folder(self.path, lambda file: Path(file).suffix.lower() in SUFFIXES)
        found.report(f"data.path={self.path}", f"sounds ({' '.join(SUFFIXES)})")
        if len(found.files) < 3:
            for file in sorted(found.files):
                read_audio(self.path / file, file)  # a damaged file is the better message
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
            DataError: an unreadable file.
        """
        order = sorted(self.files, key=lambda file: (crc32(file.encode()), file))
        share = max(len(order) // 10, 1)
        parts = [self.segments(part) for part in (order[2 * share :], order[:share], order[share : 2 * share])]
        return parts[0], parts[1], parts[2]

    def segments(self, files: list[str]) -> Split:
        """Segments of files, and their labels."""
        sounds, labels = [], []
        for file in sorted(files):
            wave, rate = read_audio(self.path / file, file)
            mono = resample(wave.mean(0, keepdim=True), rate, self.sample_rate)
            sounds.append(cut(normalised(mono, self.loudness)[0], self.samples))
            labels += [self.classes.index(file.split("/")[0]) if self.classes else 0] * len(sounds[-1])
        return torch.cat(sounds), torch.tensor(labels)
