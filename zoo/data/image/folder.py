"""Folder of images of any size and mode."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from PIL import UnidentifiedImageError
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float, random_hflip
from zoo.data.image import decode
from zoo.data.image.labels import read_labels
from zoo.data.image.listing import SPLITS, FolderListing, Share, assign_splits, copies, list_files
from zoo.data.image.torchvision import Size, parse_size
from zoo.data.listing import log_rank0

log = logging.getLogger(__name__)
N_PROBED = 2_000  # evenly spaced images whose headers decide the size and the channels
MAX_DEFAULT_PIXELS = 512 * 512  # of a size that is inferred
MAX_CONSECUTIVE_ERRORS = 50  # unreadable images while training
CHUNK = 4_096  # files that are submitted to the threads at once
FILES_PER_TASK = 64  # one file per task would cost more than reading it


@register("data", "images")
class Images(DataModule):
    """Your own images: data=images data.path=DIR. Sub-folders are classes; train, val and test folders are splits.

    Without such folders a hash of its name assigns each image to a split, so that new images do not move others. Splits
    without a folder are taken from the training images in the same way. Images are resized to cover `size`, and
    cropped at the centre (see `zoo.data.image.decode.read`).

    Args:
        path: folder of images.
        batch_size: samples per batch.
        seed: seed of the training order and of random transformations.
        size: height and width of all images; None is the most frequent size.
        channels: 1 (grey), 3 (colour) or 4 (with transparency); None is colour unless all images are grey.
        bits: of the values in images with 16 bits a value; the largest such value becomes white. None is the smallest
            of 8, 12 and 16 that holds all values of the folder.
        flip: mirror training images left to right with probability 1/2.
        labels: the first level of sub-folders are classes.
        label_file: CSV or JSON Lines file with the columns file_name and label, in place of sub-folders; a relative
            path begins at the folder.
        val_fraction: share of the images for validation, without a val folder.
        test_fraction: share of the images for testing, without a test folder.
        memory_gb: images are decoded once and kept as bytes if they fit into this (in each process), else decoded
            for every batch.
        on_error: "raise" rejects a folder with unreadable images and names them; "skip" leaves them out. If images are
            decoded per batch, only headers are read in advance. An image that is unreadable while training is reported
            once, and the next one replaces it.

    Raises:
        DataError: no such folder, no images in it, or unreadable images.
    """

    def __init__(
        self,
        *,
        path: str,
        batch_size: PositiveInt = 64,
        seed: int = 0,
        size: Size = None,
        channels: Literal[1, 3, 4] | None = None,
        bits: Annotated[int | None, Interval(ge=8, le=16)] = None,
        flip: bool = False,
        labels: bool = True,
        label_file: str | None = None,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        memory_gb: NonNegative = 4.0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(batch_size, seed)
        if val_fraction + test_fraction >= 1:
            raise DataError("data.val_fraction + data.test_fraction: nothing left to train on. Keep the sum below 1.")
        self.path, self.flip, self.labels = user_path(path), flip, labels
        self.fractions, self.memory_gb, self.on_error = (val_fraction, test_fraction), memory_gb, on_error
        self.label_file = self.path / user_path(label_file) if label_file else None
        self._size, self._channels, self._bits = parse_size(size), channels, bits
        self._pixels: Tensor | None = None  # of all files, uint8 (N, C, H, W), if kept in memory
        self._warned: set[str] = set()

    @property
    def spec(self) -> DataSpec:
        """Images of the given or inferred size and channels; reads names, and headers if necessary."""
        height, width, channels = self.format
        n_classes = len(self.listing.classes)
        return DataSpec(Image(channels, height, width), Label(n_classes) if n_classes else None, name="images")

    @property
    def classes(self) -> list[str]:
        """Names of the class folders."""
        return self.listing.classes

    @cached_property
    def listing(self) -> FolderListing:
        """Files, labels and splits of the folder."""
        found = list_files(self.path)
        by_folder = self.labels and self.label_file is None
        listing = assign_splits(self.path, found.files, found.others, by_folder, self.fractions)
        if self.label_file:
            listing.classes, listing.labels = read_labels(self.label_file, listing.files)
        found.report(f"data.path={self.path}", f"images ({' '.join(sorted(decode.SUFFIXES))})")
        return listing

    @cached_property
    def bits(self) -> int:
        """Bits of the values in images with 16 bits a value: as given, or inferred from the largest of the folder."""
        if self._bits is not None:
            return self._bits
        deep = [file for file in self.listing.files if os.path.splitext(file)[1].lower() in decode.DEEP_SUFFIXES]
        tops = self._each(decode.deepest, deep[:: max(len(deep) // N_PROBED, 1)], "depths")
        top = max((top for top in tops if isinstance(top, int)), default=2**16 - 1)
        bits = next((bits for bits in (8, 12) if top < 2**bits), 16)
        if bits < 16:
            log_rank0(
                log.warning,
                f"data.bits={bits}: the largest value of the images with 16 bits is {top:,}, so {2**bits - 1:,} is "
                f"white. Set data.bits=16 to keep them dark.",
            )
        return bits

    @cached_property
    def format(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        size, channels = self._size, self._channels
        if size and channels:
            return *size, channels
        files = self.listing.files[:: max(len(self.listing.files) // N_PROBED, 1)]
        probes = [p for p in self._each(decode.probe, files, "headers") if not isinstance(p, Exception)]
        if not probes:
            raise DataError(
                f"data.path={self.path}: no readable image, {len(files)} of {len(files)} fail. Give another folder."
            )
        if size is None:
            (size, number), *_ = Counter((h, w) for h, w, _ in probes).most_common(1)
            if math.prod(size) > MAX_DEFAULT_PIXELS:
                raise DataError(
                    f"data.path={self.path}: most images are {size[0]}x{size[1]}, a large size to learn. Set "
                    f"data.size=64, or data.size=[{size[0]},{size[1]}] to keep it."
                )
            sizes = len({(h, w) for h, w, _ in probes})
            others = f"; those of {sizes - 1} other sizes are resized and cropped to it. Set data.size to choose"
            log_rank0(
                log.warning if sizes > 1 else log.info,
                f"data.size={size[0]}x{size[1]}: {number / len(probes):.0%} of the images have it"
                f"{others if sizes > 1 else ''}.",
            )
        return *size, channels or (1 if all(grey for *_, grey in probes) else 3)

    def load(self) -> None:
        """Decode all images, or check all headers if the images do not fit into memory."""
        listing, (height, width, channels), _ = self.listing, self.format, self.bits
        if len(listing.files) * channels * height * width <= self.memory_gb * 2**30:
            self._pixels = torch.empty(len(listing.files), channels, height, width, dtype=torch.uint8)
            self.keep_on_gpu = True
            results = self._each(self._read, listing.files, "images", self._pixels)
        else:
            self.prefetch = 2
            results = self._each(decode.probe, listing.files, "headers")
        broken = {i: r for i, r in enumerate(results) if isinstance(r, Exception)}
        if broken:
            self._refuse({listing.files[i]: error for i, error in broken.items()}, len(listing.files))
        y = torch.tensor(listing.labels)
        keep = {name: torch.tensor([i for i in rows if i not in broken]) for name, rows in listing.splits.items()}
        for name, rows in keep.items():
            if not len(rows):
                raise DataError(f"data.path={self.path}: no readable image for the {name} split. Add some.")
        self.train, self.val, self.test = ((keep[name], y[keep[name]]) for name in SPLITS)  # x: indices of files
        numbers = ", ".join(f"{len(rows):,} {name}" for name, rows in keep.items())
        kinds = f" of {len(listing.classes)} classes ({', '.join(listing.classes[:12])})" if listing.classes else ""
        log_rank0(log.info, f"images in {self.path}: {numbers}{kinds}")
        if listing.ignored:
            log_rank0(
                log.warning, f"data.path={self.path}: left out {listing.ignored:,} outside of train / val / test."
            )
        for name, kept in (("validation", keep["val"]), ("test", keep["test"])):
            if same := copies(self.path, listing.files, keep["train"].tolist(), kept.tolist()):
                log_rank0(
                    log.warning,
                    f"data.path={self.path}: {len(same):,} {name} images are also in the training split, such as "
                    f"{same[0][0]} as {same[0][1]}. Remove copies, as held-out losses would be too good.",
                )

    def resident_tensors(self) -> list[Tensor]:
        """Indices of files, and their pixels if kept in memory."""
        return super().resident_tensors() + ([] if self._pixels is None else [self._pixels])

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make a batch of floats in [0, 1], decoded if not in memory, mirrored if `flip`."""
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
        return decode.read(path, (height, width), channels, self.bits)

    def _decode(self, split: Split, index: int) -> Split:
        """Read the image and label at an index of a split, or the next readable ones."""
        reason = ""
        tries = min(len(split[0]), MAX_CONSECUTIVE_ERRORS)
        for place in range(index, index + tries):
            row = place % len(split[0])
            file = self.listing.files[int(split[0][row])]
            try:
                return self._read(self.path / file), split[1][row]
            except Exception as error:  # a damaged file may raise anything
                reason = _reason(error)
                if file not in self._warned:
                    self._warned.add(file)
                    self._refuse({file: error}, len(self.listing.files), training=True)
        raise DataError(
            f"data.path={self.path}: {tries} images in a row cannot be read ({reason}). "
            f"The folder changed while training: restore it, and continue with resume=RUN."
        )

    def _refuse(self, broken: dict[str, Exception], total: int, training: bool = False) -> None:
        """Raise with names and reasons, or warn if `on_error` is "skip" or training has begun."""
        named = [f"{file} ({_reason(error)})" for file, error in list(broken.items())[:5]]
        more = f" and {len(broken) - 5:,} more" if len(broken) > 5 else ""
        what = f"data.path={self.path}: {len(broken):,} of {total:,} images cannot be read: {', '.join(named)}{more}"
        if self.on_error == "raise" and not training:
            raise DataError(f"{what}. Repair or delete them, or leave them out with data.on_error=skip.")
        log_rank0(log.warning, f"{what}; left out")

    def _each(self, function: Any, files: Sequence[str], what: str, into: Tensor | None = None) -> list[Any]:
        """Apply a function to each file by threads, in order; an exception replaces its result."""

        def attempt(number: int) -> Any:
            try:
                result = function(self.path / files[number])
            except Exception as error:  # a damaged file may raise anything
                return error
            if into is None:
                return result
            into[number] = result
            return None

        def several(numbers: range) -> list[Any]:
            return [attempt(number) for number in numbers]

        def results() -> Iterator[Any]:
            with ThreadPoolExecutor(n_threads()) as threads:
                for first in range(0, len(files), CHUNK):
                    chunk = range(first, min(first + CHUNK, len(files)))
                    tasks = [chunk[i : i + FILES_PER_TASK] for i in range(0, len(chunk), FILES_PER_TASK)]
                    for part in threads.map(several, tasks):
                        yield from part

        return list(progress(results(), len(files), what))


def _reason(error: Exception) -> str:
    """Describe an error in one line."""
    if isinstance(error, UnidentifiedImageError):  # its message repeats the whole path
        return "not an image"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def n_threads() -> int:
    """Number of decoding threads; Pillow releases the GIL."""
    return min(os.cpu_count() or 1, 16)


def progress(results: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """Yield the results, with a transient progress bar if there are many."""
    from rich.console import Console
    from rich.progress import track

    bar = Console(stderr=True)
    quiet = total < CHUNK or not bar.is_terminal or getattr(rank_zero_only, "rank", 0) != 0
    return iter(track(results, f"reading {what}", total, console=bar, transient=True, disable=quiet))
