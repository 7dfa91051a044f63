"""A folder of pictures of any size and mode: your own data."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import UnidentifiedImageError
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from zoo.core.errors import DataError, printable
from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float, random_hflip
from zoo.data.image import decode
from zoo.data.image.listing import SPLITS, FolderListing, Share, assign_splits, list_files
from zoo.data.image.torchvision import Size, pair

log = logging.getLogger(__name__)
N_PROBED = 2_000  # pictures, evenly spaced among all, whose headers decide the size and the channels
LARGEST = 512 * 512  # pixels of a size that nobody asked for
IN_A_ROW = 50  # unreadable pictures while training: more of them, and the folder is not what it was
CHUNK = 4_096  # files handed to the threads before the first result is looked at
AT_ONCE = 64  # of which a thread takes so many


@register("data", "images")
class Images(DataModule):
    """A folder of pictures; sub-folders are classes, and train / val / test folders are splits.

    Without such folders each picture goes to the split that a hash of its name says, so that adding pictures
    never moves others; what a given layout lacks is cut off its training pictures in the same way. See
    `zoo.data.image.decode.read` for how a picture becomes a tensor: upright, opaque, resized to cover, cropped at
    the centre.

    Args:
        path: the folder.
        batch_size: samples a batch.
        seed: of the training order and of random transformations.
        size: height and width of all pictures; None takes the size that most of them have.
        channels: 1 (grey) or 3 (colour); None is colour unless all pictures are grey.
        flip: mirror training pictures left to right, each with probability one half.
        labels: sub-folders are classes; the first level counts.
        val_fraction: share of the pictures to validate on, where no folder says it.
        test_fraction: share of the pictures to test on, where no folder says it.
        memory_gb: pictures are decoded once and kept as bytes where that takes no more than this (in each
            process), else for every batch anew.
        on_error: "raise" refuses a folder with pictures that cannot be read and names them; "skip" leaves
            them out. Where pictures are decoded for every batch, only their headers are read beforehand; one
            that turns out damaged or gone while training is reported once and replaced by the next.

    Raises:
        DataError: no such folder, no pictures in it, pictures that cannot be read.
    """

    def __init__(
        self,
        *,
        path: str,
        batch_size: PositiveInt = 64,
        seed: int = 0,
        size: Size = None,
        channels: Literal[1, 3] | None = None,
        flip: bool = False,
        labels: bool = True,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        memory_gb: NonNegative = 4.0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(batch_size, seed)
        if val_fraction + test_fraction >= 1:
            raise DataError("data.val_fraction + data.test_fraction must leave something to train on: less than 1.")
        self.path, self.flip, self.labels = Path(path).expanduser(), flip, labels
        self.fractions, self.memory_gb, self.on_error = (val_fraction, test_fraction), memory_gb, on_error
        self._size, self._channels = pair(size), channels
        self._pixels: Tensor | None = None  # of all files, uint8 (N, C, H, W), if they are kept
        self._warned: set[str] = set()

    @property
    def spec(self) -> DataSpec:
        """Images of the size and channels asked for or found; reads names, and headers where it must."""
        height, width, channels = self.format
        n_classes = len(self.found.classes)
        return DataSpec(Image(channels, height, width), Label(n_classes) if n_classes else None, name="images")

    @property
    def classes(self) -> list[str]:
        """Names of the sub-folders that are classes."""
        return self.found.classes

    @cached_property
    def found(self) -> "FolderListing":
        """What lies in the folder."""
        return assign_splits(self.path, *list_files(self.path), self.labels, self.fractions)

    @cached_property
    def format(self) -> tuple[int, int, int]:
        """(height, width, channels) of every picture."""
        size, channels = self._size, self._channels
        if size and channels:
            return *size, channels
        files = self.found.files[:: max(len(self.found.files) // N_PROBED, 1)]
        probes = [p for p in self._each(decode.probe, files, "headers") if not isinstance(p, Exception)]
        if not probes:
            raise DataError(
                f"data.path={self.path} has no picture that can be read: {len(files)} of {len(files)} fail."
            )
        if size is None:
            (size, number), *_ = Counter((h, w) for h, w, _ in probes).most_common(1)
            if math.prod(size) > LARGEST:
                raise DataError(
                    f"most pictures in {self.path} are {size[0]}x{size[1]}, a large size to learn: choose "
                    f"data.size=64, or data.size=[{size[0]},{size[1]}] if you mean it."
                )
            log_rank0(log.info, f"data.size={size[0]}x{size[1]}: {number / len(probes):.0%} of the pictures have it")
        return *size, channels or (1 if all(grey for *_, grey in probes) else 3)

    def load(self) -> None:
        """Decode everything, or check every header where memory would not hold it."""
        found, (height, width, channels) = self.found, self.format
        if len(found.files) * channels * height * width <= self.memory_gb * 2**30:
            self._pixels = torch.empty(len(found.files), channels, height, width, dtype=torch.uint8)
            self.keep_on_gpu = True
            results = self._each(self._read, found.files, "pictures", self._pixels)
        else:
            self.prefetch = 2
            results = self._each(decode.probe, found.files, "headers")
        broken = {i: r for i, r in enumerate(results) if isinstance(r, Exception)}
        if broken:
            self._refuse({found.files[i]: error for i, error in broken.items()}, len(found.files))
        y = torch.tensor(found.labels)
        keep = {name: torch.tensor([i for i in rows if i not in broken]) for name, rows in found.splits.items()}
        for name, rows in keep.items():
            if not len(rows):
                raise DataError(
                    f"data.path={self.path} has no picture for the {name} split that can be read: add some."
                )
        self.train, self.val, self.test = ((keep[name], y[keep[name]]) for name in SPLITS)  # x: numbers of files
        numbers = ", ".join(f"{len(rows):,} {name}" for name, rows in keep.items())
        kinds = f" of {len(found.classes)} classes ({', '.join(found.classes[:12])})" if found.classes else ""
        rest = f"; left out {found.ignored:,} outside of train / val / test" if found.ignored else ""
        log_rank0(log.info, f"pictures in {self.path}: {numbers}{kinds}{rest}")

    def resident_tensors(self) -> list[Tensor]:
        """The numbers of files, and their pixels if these are kept."""
        return super().resident_tensors() + ([] if self._pixels is None else [self._pixels])

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1], decoded if they are not in memory, mirrored at random if asked."""
        if self._pixels is not None:
            rows, y = super().fetch(split, indices, generator, train=train)
            x = self.on_device(rows, self._pixels)[rows]
        else:
            with ThreadPoolExecutor(n_threads()) as threads:
                decoded = list(threads.map(lambda index: self._decode(split, index), indices.tolist()))
            x, y = torch.stack([pixels for pixels, _ in decoded]), torch.stack([label for _, label in decoded])
        x = as_float(x)
        return (random_hflip(x, generator) if train and self.flip else x), y

    def _read(self, path: Path) -> Tensor:
        height, width, channels = self.format
        return decode.read(path, (height, width), channels)

    def _decode(self, split: Split, index: int) -> Split:
        """The picture and label at an index of a split, or the next that can be read."""
        reason = ""
        for place in range(index, index + min(len(split[0]), IN_A_ROW)):
            row = place % len(split[0])
            file = self.found.files[int(split[0][row])]
            try:
                return self._read(self.path / file), split[1][row]
            except Exception as error:  # a damaged file may raise anything
                reason = _reason(error)
                if file not in self._warned:
                    self._warned.add(file)
                    self._refuse({file: error}, len(self.found.files), training=True)
        raise DataError(
            f"{min(len(split[0]), IN_A_ROW)} pictures tried in data.path={self.path} cannot be read ({reason}): "
            f"the folder changed while training; restore it, and go on with resume=RUN."
        )

    def _refuse(self, broken: dict[str, Exception], total: int, training: bool = False) -> None:
        """Raise, or warn if `on_error` says skip or training has begun, with the number, the names and the reasons."""
        named = [f"{file} ({_reason(error)})" for file, error in list(broken.items())[:5]]
        more = f" and {len(broken) - 5:,} more" if len(broken) > 5 else ""
        what = f"{len(broken):,} of {total:,} pictures in {self.path} cannot be read: {', '.join(named)}{more}"
        if self.on_error == "raise" and not training:
            raise DataError(f"{what}; repair or delete them, or leave them out with data.on_error=skip.")
        log_rank0(log.warning, f"{what}; left out")

    def _each(self, function: Any, files: Sequence[str], what: str, into: Tensor | None = None) -> list[Any]:
        """Apply a function to each file by threads, in order; an exception takes the place of its result."""

        def attempt(number: int) -> Any:
            try:
                result = function(self.path / files[number])
            except Exception as error:  # a damaged file may raise anything
                return error
            if into is None:
                return result
            into[number] = result
            return None

        def several(numbers: range) -> list[Any]:  # to hand one to a thread takes longer than to read it
            return [attempt(number) for number in numbers]

        def results() -> Iterator[Any]:
            with ThreadPoolExecutor(n_threads()) as threads:
                for first in range(0, len(files), CHUNK):
                    chunk = range(first, min(first + CHUNK, len(files)))
                    for part in threads.map(several, [chunk[i : i + AT_ONCE] for i in range(0, len(chunk), AT_ONCE)]):
                        yield from part

        return list(progress(results(), len(files), what))


def _reason(error: Exception) -> str:
    """Why a picture cannot be read, on one line."""
    if isinstance(error, UnidentifiedImageError):  # names the file again, by its whole path
        return "not a picture"
    return " ".join(str(error).split()) or type(error).__name__


def n_threads() -> int:
    """Threads that decode; Pillow leaves the interpreter to others meanwhile."""
    return min(os.cpu_count() or 1, 16)


def log_rank0(how: Any, message: str) -> None:
    """Log in the first process only."""
    rank_zero_only(how)(printable(message))


def progress(results: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """The results, with a bar that vanishes when they are complete, where there are many."""
    from rich.console import Console
    from rich.progress import track

    bar = Console(stderr=True)
    quiet = total < CHUNK or not bar.is_terminal or getattr(rank_zero_only, "rank", 0) != 0
    return iter(track(results, f"reading {what}", total, console=bar, transient=True, disable=quiet))
