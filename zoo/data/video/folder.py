"""Folders of video files."""

import logging
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.counted import counted
from zoo.core.errors import ConfigError, DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Label, Video
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.image.listing import FolderListing, Share, assign_splits
from zoo.data.image.torchvision import Size, parse_size
from zoo.data.listing import list_folder, log_rank0, report_unreadable
from zoo.data.video.video_file import SUFFIXES, read_video

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")


@register("data", "videos")
class Videos(DataModule):
    """Your own videos: data=videos data.path=FOLDER. Sub-folders are classes; train, val and test folders are splits.

    GIF, animated PNG and WebP need nothing else; MP4 and others need the extra `video`. Files are cut into adjacent
    clips of `frames`, and the rest of a file is left out. All clips of a file are in one split, which a hash of its
    name assigns. Each frame is resized to cover `size`, and cropped at the centre.

    Args:
        path: the folder.
        frames: of a clip.
        size: height and width of all frames.
        channels: 1 (grey) or 3 (colour).
        frame_rate: frames per second, chosen by the times of a file; null takes each frame once.
        batch_size: clips per batch.
        seed: seed of the training order.
        val_fraction: share of the files for validation, without a val folder.
        test_fraction: share of the files for testing, without a test folder.
        on_error: "raise" rejects a folder with unreadable files, and names them; "skip" leaves them out.

    Raises:
        DataError: no such folder, fewer than three files, unreadable files, or no clip in a split.
        ConfigError: a file needs the extra `video`, which is not installed.
    """

    def __init__(
        self,
        *,
        path: str,
        frames: PositiveInt = 8,
        size: Size = 32,
        channels: Literal[1, 3] = 3,
        frame_rate: Annotated[int | None, Interval(ge=1, le=1000)] = None,
        batch_size: PositiveInt = 16,
        seed: int = 0,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(batch_size, seed)
        if val_fraction + test_fraction >= 1:
            raise DataError("data.val_fraction + data.test_fraction: nothing left to train on. Keep the sum below 1.")
        self.path, self.frames, self.channels, self.frame_rate = user_path(path), frames, channels, frame_rate
        sides = parse_size(size)
        if sides is None:
            raise DataError("data.size=null: frames need a size. Set data.size=32, or data.size=[HEIGHT,WIDTH].")
        self.size, self.on_error = sides, on_error
        self.listing = self.listed((val_fraction, test_fraction))

    def listed(self, fractions: tuple[float, float]) -> FolderListing:
        """Files, labels and splits."""
        if not self.path.is_dir():
            raise DataError(f"data.path={self.path}: not a folder. Give one with videos.")
        found = list_folder(self.path, lambda file: Path(file).suffix.lower() in SUFFIXES)
        found.report(f"data.path={self.path}", f"videos ({' '.join(SUFFIXES)})")
        if len(found.files) < len(SPLITS):
            broken = {file: problem for file in sorted(found.files) if (problem := self.problem(file))}
            self.report(broken, [])
            raise DataError(
                f"data.path={self.path}: {counted(len(found.files), 'video')}, too few to split. Give at least 3."
            )
        return assign_splits(self.path, sorted(found.files), Counter(), True, fractions)

    def problem(self, file: str) -> str:
        """Why a file cannot be read; empty if it can.

        Raises:
            ConfigError: it needs the extra `video`, which is not installed.
        """
        try:
            read_video(self.path / file, self.size, self.channels, self.frame_rate)
        except ConfigError:
            raise
        except Exception as error:  # a damaged file may raise anything
            return reason_of(error)
        return ""

    @property
    def classes(self) -> list[str]:
        """Names of the class folders."""
        return self.listing.classes

    @property
    def spec(self) -> DataSpec:
        """Clips (frames, channels, *size)."""
        space = Video(self.frames, self.channels, *self.size, frame_rate=self.frame_rate or 8)
        return DataSpec(space, Label(len(self.classes)) if self.classes else None, name=self.registered_name)

    def load(self) -> None:
        """Decode all files, and cut them into clips, which are kept as bytes."""
        broken, short, longest = dict[str, str](), list[str](), 0
        parts: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in SPLITS}
        for name, rows in self.listing.splits.items():
            for row in rows:
                file = self.listing.files[row]
                try:
                    video = read_video(self.path / file, self.size, self.channels, self.frame_rate)
                except ConfigError:
                    raise
                except Exception as error:  # a damaged file may raise anything
                    broken[file] = reason_of(error)
                    continue
                longest = max(longest, len(video))
                if len(video) < self.frames:
                    short.append(file)
                else:
                    parts[name].append((cut(video, self.frames), self.listing.labels[row]))
        self.report(broken, short)
        for name, clips in parts.items():
            if not clips:
                raise DataError(
                    f"data.path={self.path}: no clip of {counted(self.frames, 'frame')} for the {name} split; the "
                    f"longest file has {longest}. Set data.frames to less, or add files."
                )
            x = torch.cat([clip for clip, _ in clips])
            setattr(self, name, (x, torch.cat([torch.full((len(clip),), label) for clip, label in clips])))

    def report(self, broken: dict[str, str], short: list[str]) -> None:
        """Raise or warn of unreadable files, and warn of short ones."""
        report_unreadable(f"data.path={self.path}", broken, "video", self.on_error)
        if short:
            what = f"{counted(len(short), 'video')} with fewer than {counted(self.frames, 'frame')}, such as {short[0]}"
            log_rank0(log.warning, f"data.path={self.path}: left out {what}. Set data.frames to less to use them.")

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, frames, channels, *size)."""
        x, y = super().fetch(split, indices, generator, train=train)
        return as_float(x), y


def reason_of(error: Exception) -> str:
    """The message of an error, in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def cut(video: Tensor, frames: int) -> Tensor:
    """Cut a video (F, ...) into adjacent clips (F // frames, frames, ...)."""
    count = len(video) // frames
    return video[: count * frames].unflatten(0, (count, frames))
