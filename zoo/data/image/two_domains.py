"""Two domains of pictures without pairs, such as photographs and paintings."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float, random_hflip
from zoo.data.image.drawings import BLACK, NIGHT, ORANGE, WHITE, painted
from zoo.data.image.folder import Images
from zoo.data.image.listing import SPLITS, Share
from zoo.data.image.picture_pairs import check_folders, read_together
from zoo.data.image.shapes import SIDE, Shapes, draw_all
from zoo.data.image.torchvision import Size
from zoo.data.loader import make_generator


@register("data", "two_domains")
class TwoDomains(DataModule):
    """Pictures of two folders, without pairs: data.source=DIR data.target=DIR.

    In a batch, x holds pictures of the target folder, and y others of the source folder, drawn at random. An epoch
    shows every target picture once.

    Without folders, the 6,144 images of `shapes` are black on white (source) or orange on dark blue (target). The
    domains share no training shape: 2,458 images each. Held-out samples are true partners, to measure translations.

    Args:
        source: folder of the first domain.
        target: folder of the second domain.
        batch_size: samples per batch, of each domain.
        seed: seed of the training order, of the partners and of random transformations.
        size: height and width of all pictures; None is the most frequent size of each folder.
        flip: mirror training pictures with probability 1/2, each domain on its own.
        val_fraction: share of each folder for validation, without a val folder.
        test_fraction: share of each folder for testing, without a test folder.
        memory_gb: pictures of a folder are decoded once if they fit into this, else for every batch.

    Raises:
        DataError: one folder without the other, or unreadable pictures.
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
            given: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "size": size, "memory_gb": memory_gb}
            given |= {"labels": False, "val_fraction": val_fraction, "test_fraction": test_fraction}
            self.sides = Images(path=target, **given), Images(path=source, **given)
        self.held_out_partners = self.sides is None

    @property
    def spec(self) -> DataSpec:
        """Pictures of the target domain, given those of the source domain."""
        if self.sides is None:
            space = Image(3, SIDE, SIDE)
            return DataSpec(space, Unpaired(space), name=self.registered_name)
        x, y = (side.spec.x for side in self.sides)
        return DataSpec(x, Unpaired(y), name=self.registered_name)

    def load(self) -> None:
        """Read both folders, or draw the shapes."""
        if self.sides is None:
            self.shapes = draw_all(Shapes.factor_sizes)
            self.keep_on_gpu = True
            order = torch.randperm(len(self.shapes), generator=make_generator(0))
            held = len(order) // 10
            half = (len(order) - 2 * held) // 2
            one, two, val, test = order.split([half, half, held, held])
            self.train, self.val, self.test = (one, two), (val, val), (test, test)
            return
        for side in self.sides:
            side.setup()
        read_together(self, *self.sides)
        found = []
        for name in SPLITS:
            x, y = (getattr(side, name)[0] for side in self.sides)
            found.append((x, y[torch.arange(len(x)) % len(y)]))
        self.train, self.val, self.test = found

    def resident_tensors(self) -> list[Tensor]:
        """Numbers of pictures, and all pictures in memory."""
        pictures = [self.shapes] if self.sides is None else [t for side in self.sides for t in side.resident_tensors()]
        return [*super().resident_tensors(), *pictures]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Pictures of the target domain (B, C, H, W), and others of the source domain (B, C', H', W')."""
        chosen = indices
        if train:
            pool = split[1] if self.sides is None else self.sides[1].train[0]
            chosen = torch.randint(len(pool), (len(indices),), generator=generator).to(indices.device)
            split = split[0], pool
        if self.sides is None:
            filled = [
                as_float(self.on_device(rows, self.shapes)[self.on_device(rows, part)[rows]])
                for part, rows in zip(split, (indices, chosen), strict=True)
            ]
            x, y = (
                painted(shape, torch.tensor([ink]), paper)
                for shape, ink, paper in zip(filled, (ORANGE, BLACK), (NIGHT, WHITE), strict=True)
            )
        else:
            x, y = (
                side.fetch((part, part), rows, generator, train=train)[0]
                for side, part, rows in zip(self.sides, split, (indices, chosen), strict=True)
            )
        return (random_hflip(x, generator), random_hflip(y, generator)) if train and self.flip else (x, y)
