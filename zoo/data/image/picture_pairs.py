"""Pairs of pictures: each picture of one folder is given with its partner in another one."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float, random_hflip
from zoo.data.image.drawings import INKS, WHITE, outlines, painted
from zoo.data.image.folder import Images
from zoo.data.image.listing import SPLITS, FolderListing, Share, assign_splits, list_files
from zoo.data.image.shapes import SIDE, Shapes, draw_all
from zoo.data.image.torchvision import Size
from zoo.data.listing import log_rank0
from zoo.data.loader import make_generator

log = logging.getLogger(__name__)


class ListedImages(Images):
    """Pictures of a folder whose list of files is given.

    Args:
        listing: files, relative to the folder, and their splits.
        path: the folder.
        settings: of `Images`.
    """

    def __init__(self, listing: FolderListing, path: str, **settings: Any) -> None:
        super().__init__(path=path, labels=False, **settings)
        self.listing = listing

    def _decode(self, split: Split, index: int) -> Split:
        """Read one picture; no other one replaces it, because that is the partner of another picture.

        Raises:
            DataError: an unreadable picture.
        """
        file = self.listing.files[int(split[0][index])]
        try:
            return self._read(self.path / file), split[1][index]
        except Exception as error:  # a damaged file may raise anything
            raise DataError(f"{self.path / file}: cannot be read ({error}). Restore it, then resume=RUN.") from None


@register("data", "picture_pairs")
class PicturePairs(DataModule):
    """Pictures given their partners, from two folders with equal names: data.source=DIR data.target=DIR.

    A model learns pictures of the target folder, given pictures of the source folder. Names are compared without
    suffix. Splits follow the target folder, as in `images`. Without folders, outlines of the 6,144 images of `shapes`
    are given with their colour drawings: a kite is red, a letter L green, a half disc blue (4,916 for training).

    Args:
        source: folder of the given pictures.
        target: folder of the pictures to learn.
        batch_size: samples per batch.
        seed: seed of the training order and of random transformations.
        size: height and width of all pictures; None is the most frequent size of each folder.
        flip: mirror both pictures of a training pair with probability 1/2.
        val_fraction: share for validation, without a val folder.
        test_fraction: share for testing, without a test folder.
        memory_gb: pictures of a folder are decoded once if they fit into this, else for every batch.

    Raises:
        DataError: one folder without the other, pictures without partner, or unreadable pictures.
    """

    def __init__(
        self,
        *,
        source: str | None = None,
        target: str | None = None,
        batch_size: PositiveInt = 16,
        seed: int = 0,
        size: Size = None,
        flip: bool = False,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        memory_gb: NonNegative = 4.0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_folders(source, target)
        self.flip = flip
        self.sides: tuple[Images, Images] | None = None  # target and source
        self.shapes = torch.empty(0)  # uint8 (6144, 1, 32, 32), where there are no folders
        if source is not None and target is not None:
            listings = match_names(user_path(target), user_path(source), (val_fraction, test_fraction))
            given: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "size": size, "memory_gb": memory_gb}
            self.sides = ListedImages(listings[0], target, **given), ListedImages(listings[1], source, **given)

    @property
    def spec(self) -> DataSpec:
        """Pictures given pictures, each of the size and channels of its folder."""
        if self.sides is None:
            return DataSpec(Image(3, SIDE, SIDE), Image(1, SIDE, SIDE), name=self.registered_name)
        x, y = (side.spec.x for side in self.sides)
        return DataSpec(x, y, name=self.registered_name)

    def load(self) -> None:
        """Read both folders, or draw the shapes."""
        if self.sides is None:
            self.shapes = draw_all(Shapes.factor_sizes)
            self.keep_on_gpu = True
            order = torch.randperm(len(self.shapes), generator=make_generator(0))
            held = len(order) // 10
            parts: list[Split] = [(rows, rows) for rows in order.split([len(order) - 2 * held, held, held])]
            self.train, self.val, self.test = parts  # numbers of images
            return
        for side in self.sides:
            side.setup()
        read_together(self, *self.sides)
        one, two = self.sides
        self.train, self.val, self.test = ((getattr(one, name)[0], getattr(two, name)[0]) for name in SPLITS)

    def resident_tensors(self) -> list[Tensor]:
        """Numbers of pictures, and all pictures in memory."""
        pictures = [self.shapes] if self.sides is None else [t for side in self.sides for t in side.resident_tensors()]
        return [*super().resident_tensors(), *pictures]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Pictures (B, C, H, W) and given pictures (B, C', H', W') in [0, 1], mirrored together if `flip`."""
        if self.sides is None:
            rows, _ = DataModule.fetch(self, split, indices, generator, train=train)
            filled = as_float(self.on_device(rows, self.shapes)[rows])
            shape = torch.unravel_index(rows, Shapes.factor_sizes)[0]
            x, y = painted(filled, torch.tensor(INKS, device=rows.device)[shape], WHITE), outlines(filled)
        else:
            x, y = (
                side.fetch((part, part), indices, generator, train=train)[0]
                for side, part in zip(self.sides, split, strict=True)
            )
        if not (train and self.flip):
            return x, y
        again = generator.clone_state()  # both are mirrored by the same numbers
        return random_hflip(x, generator), random_hflip(y, again)


def check_folders(source: str | None, target: str | None) -> None:
    """Check that both folders are given, or none.

    Raises:
        DataError: one without the other, or not a folder.
    """
    if (source is None) != (target is None):
        have, lack = ("source", "target") if target is None else ("target", "source")
        raise DataError(f"data.{have}={source or target}: without data.{lack}. Give both folders.")
    for side, folder in (("source", source), ("target", target)):
        if folder is not None and not user_path(folder).is_dir():
            raise DataError(f"data.{side}={folder}: not a folder. Give a folder of images.")


def read_together(data: DataModule, *sides: Images) -> None:
    """Keep batches of two folders on a GPU if both are in memory, and prepare them in advance if one is not."""
    data.keep_on_gpu = all(side.keep_on_gpu for side in sides)
    data.prefetch = max(side.prefetch for side in sides)


def match_names(target: Path, source: Path, fractions: tuple[float, float]) -> tuple[FolderListing, FolderListing]:
    """List two folders in the same order, with the splits of the first.

    Raises:
        DataError: a folder that cannot be listed, two pictures of one name, or pictures without partner.
    """
    found = [list_files(folder) for folder in (target, source)]
    names = [{os.path.splitext(file)[0]: file for file in side.files} for side in found]
    for folder, side, files in zip((target, source), names, found, strict=True):
        if len(side) < len(files.files):
            twice = next(file for file in files.files if side[os.path.splitext(file)[0]] != file)
            raise DataError(f"{folder}: two pictures are named {os.path.splitext(twice)[0]}. Rename one of them.")
    alone = sorted(names[0].keys() ^ names[1].keys())
    if both := names[0].keys() & names[1].keys():
        if alone:
            log_rank0(
                log.warning,
                f"data.source={source}: {len(alone):,} pictures without partner in the other folder, such as "
                f"{alone[0]}; left out",
            )
    else:
        raise DataError(
            f"data.source={source}: no picture has the name of one in {target}. Give partners equal names, such as "
            f"{alone[0] if alone else '0001'}, or choose data=two_domains."
        )
    shared = sorted(both)
    listing = assign_splits(target, [names[0][name] for name in shared], found[0].others, False, fractions)
    stems = [os.path.splitext(file)[0] for file in listing.files]
    partners = FolderListing([names[1][stem] for stem in stems], listing.labels, [], listing.splits, listing.ignored)
    return listing, partners
