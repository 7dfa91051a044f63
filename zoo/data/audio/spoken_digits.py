"""Spoken digits."""

import wave
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Literal, get_args

import torch

from zoo.core.cache import data_file
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.audio.audio_file import normalised, read_wav
from zoo.data.audio.segments import Segments, cut
from zoo.data.base import Split

RATE = 8000
Speaker = Literal["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
SPEAKERS = get_args(Speaker)
LOUDNESS = -20.0  # decibels below full scale
HELD = {"test": range(5), "val": range(5, 10)}  # takes of each digit by each speaker


@register("data", "spoken_digits")
class SpokenDigits(Segments):
    """Free Spoken Digit Dataset: the digits by six speakers, 8 kHz, in `free-spoken-digits.zip` (Jackson et al. 2018).

    The takes 0 to 4 of each digit and speaker are for testing, as usual, and 5 to 9 for validation. The speakers of all
    splits are the same, unless one is unseen. A recording is its first `samples` samples, filled with silence. Its mean
    is removed, and its root mean square is 20 decibels below full scale.

    Args:
        path: folder that contains the archive; null is `$ZOO_DATA`, else `~/.cache/zoo`.
        speakers: a label is a digit and a speaker, digit + 10 * speaker; by default it is the digit.
        unseen: a speaker whose recordings are all for testing. The others have takes 5 to 9 for validation, and the
            rest for training.
        samples: of a sound, 8,000 per second.
        batch_size: sounds per batch.
        seed: seed of the training order.
    """

    licence = "CC-BY-SA-4.0"
    FILE = "free-spoken-digits.zip"
    SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset (as a ZIP archive)"

    def __init__(
        self,
        *,
        path: str | None = None,
        speakers: bool = False,
        unseen: Speaker | None = None,
        samples: PositiveInt = 4096,
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(samples, RATE, 10 * (len(SPEAKERS) if speakers else 1), batch_size, seed)
        self.path, self.speakers, self.unseen = path, speakers, unseen
        self.variant = "_".join(["speakers"] * speakers + ([f"without_{unseen}"] if unseen else []))  # other features

    @property
    def label_parts(self) -> dict[str, torch.Tensor]:
        """Parts of each label (K,), by name."""
        labels = torch.arange(10 * (len(SPEAKERS) if self.speakers else 1))
        return {"digit": labels % 10, "speaker": labels // 10} if self.speakers else {}

    def split_of(self, speaker: str, take: int) -> str:
        """The split of a recording."""
        if self.unseen is not None and speaker == self.unseen:
            return "test"
        split = next((split for split, takes in HELD.items() if take in takes), "train")
        return "train" if self.unseen is not None and split == "test" else split

    def read(self) -> tuple[Split, Split, Split]:
        """Read the archive.

        Raises:
            DataError: no such file, or other contents.
        """
        file = data_file(self.path, self.FILE, self.SOURCE, instead="synthetic_tones")
        sounds: dict[str, list[torch.Tensor]] = {"train": [], "val": [], "test": []}
        labels: dict[str, list[int]] = {name: [] for name in sounds}
        try:
            with zipfile.ZipFile(file) as archive:
                for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
                    digit, speaker, take = PurePosixPath(name).stem.split("_")
                    split = self.split_of(speaker, int(take))
                    sound, rate = read_wav(archive.read(name))
                    if rate != RATE or not 0 <= int(digit) <= 9:
                        raise ValueError(f"{name} has {rate} Hz.")
                    if self.speakers and speaker not in SPEAKERS:
                        raise ValueError(f"{name} is by another speaker.")
                    sounds[split].append(cut(normalised(sound, LOUDNESS).mean(0), self.samples)[0])
                    labels[split].append(int(digit) + (10 * SPEAKERS.index(speaker) if self.speakers else 0))
            parts = [(torch.stack(sounds[name]), torch.tensor(labels[name])) for name in sounds]
        except (ValueError, RuntimeError, EOFError, zipfile.BadZipFile, wave.Error, zlib.error) as error:
            raise DataError(f"{file}: not the spoken digits ({error}). Save {self.SOURCE} in its place.") from None
        return parts[0], parts[1], parts[2]
