"""Standard small image data sets, in torchvision's file layout.

The files are read from `data.path`, else `$ZOO_DATA`, else `~/.cache/zoo`, and downloaded there if absent. The test set
is the published one. The last 5,000 images of the published training file, in its order, are the validation set.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from zoo.core.cache import data_root
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float, random_hflip
from zoo.data.loader import generator_on_device_of, make_generator

N_VAL = 5_000

Size = Annotated[int | list[int] | None, Interval(gt=0, le=16_384)]  # the side of a square, or [height, width]


class TorchvisionData(DataModule):
    """Torchvision data set, kept in memory as bytes.

    Args:
        batch_size: samples per batch.
        seed: seed of the training order and of random transformations.
        path: folder of the files; None is `$ZOO_DATA`, else `~/.cache/zoo`.
        download: download the files if they are absent.
        size: resize to this (bilinear, antialiased); None keeps the size.
        flip: mirror training images left to right with probability 1/2.

    Raises:
        DataError: the files are absent and cannot be downloaded, or cannot be read.
    """

    keep_on_gpu = True
    torchvision_name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]  # relative to `path`
    image_shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        *,
        batch_size: PositiveInt = 64,
        seed: int = 0,
        path: str | None = None,
        download: bool = True,
        size: Size = None,
        flip: bool = False,
    ) -> None:
        super().__init__(batch_size, seed)
        self.path, self.download, self.size, self.flip = data_root(path), download, parse_size(size), flip

    @property
    def spec(self) -> DataSpec:
        """Images of ten classes; the files are not read."""
        channels, *size = self.image_shape
        shape = (channels, *(self.size or size))
        return DataSpec(Image(*shape), Label(len(self.classes)), name=self.registered_name)

    def prepare_data(self) -> None:
        """Download absent files; Lightning calls this in one process per machine."""
        for train in (True, False):
            self.open(train)

    def load(self) -> None:
        """Read both files, and cut the validation set off the training file."""
        x, y = self.read(train=True)
        self.train, self.val = (x[:-N_VAL], y[:-N_VAL]), (x[-N_VAL:], y[-N_VAL:])
        self.test: Split = self.read(train=False)

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make a batch of floats in [0, 1], mirrored if `flip`."""
        x, y = super().fetch(split, indices, generator, train=train)
        x = as_float(x)
        return (random_hflip(x, generator) if train and self.flip else x), y

    def read(self, *, train: bool) -> Split:
        """Read images uint8 (N, C, H, W) and labels of one published file."""
        found = self.open(train)
        x, y = torch.as_tensor(found.data), torch.as_tensor(found.targets)
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x
        fits = x.dtype == torch.uint8 and x.shape[1:] == self.image_shape and y.shape == x.shape[:1]
        fits = fits and len(x) > (N_VAL if train else 0)
        if not fits or y.dtype.is_floating_point or not 0 <= int(y.min()) <= int(y.max()) < len(self.classes):
            raise DataError(
                f"{self.registered_name} in {(self.path / self.files[0]).parent}: not the published data set. Its "
                f"{'training' if train else 'test'} file has images {tuple(x.shape)} and labels {tuple(y.shape)}. "
                f"Delete the folder, and it is downloaded again."
            )
        return resize(x, self.size), y.long()

    def open(self, train: bool) -> Any:
        """Open torchvision's data set, downloaded if necessary."""
        from torchvision import datasets  # slow to import

        dataset: Callable[..., Any] = getattr(datasets, self.torchvision_name)
        folder = (self.path / self.files[0]).parent
        absent = [name for name in self.files if not (self.path / name).is_file()]
        names = ", ".join(Path(name).name for name in absent)
        missing = f"{self.registered_name}: {names} missing in {folder}"
        if absent and not self.download:
            raise DataError(f"{missing}. Set data.path=DIR or ZOO_DATA to the right folder, or data.download=true.")
        try:
            return dataset(self.path, train=train, download=bool(absent))
        except Exception as error:  # from the network, the file system or a parser
            reason = str(error).strip().rpartition("\n")[2] or type(error).__name__  # torchvision lists its mirrors
            if absent:
                raise DataError(
                    f"{missing}, and the download failed ({reason}). Set data.path=DIR or ZOO_DATA to the right "
                    f"folder, or try again with a network."
                ) from None
            raise DataError(
                f"{self.registered_name} in {folder} cannot be read ({reason}). Delete the folder, and it is "
                f"downloaded again."
            ) from None


class GreyscaleData(TorchvisionData):
    """28x28 grey images, which can be binarized in three ways.

    Args:
        binarize: "none" keeps the 256 grey levels. "dynamic" draws each pixel from a Bernoulli distribution with
            the grey value as probability: again for every training batch, and once for validation and test
            (Salakhutdinov & Murray 2008; Burda et al. 2015, 1509.00519). "static" draws once for all splits. It has
            other draws and another split than the files of Larochelle & Murray 2011. "threshold" is white for grey
            values above 1/2. The likelihoods of the four cannot be compared.
    """

    image_shape = (1, 28, 28)

    def __init__(
        self,
        *,
        batch_size: PositiveInt = 64,
        seed: int = 0,
        path: str | None = None,
        download: bool = True,
        size: Size = None,
        flip: bool = False,
        binarize: Literal["none", "dynamic", "static", "threshold"] = "none",
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, path=path, download=download, size=size, flip=flip)
        self.binarize = binarize
        self.variant = "" if binarize == "none" else binarize

    @property
    def spec(self) -> DataSpec:
        """Images (1, H, W) of ten classes; two levels if binarized."""
        levels = 256 if self.binarize == "none" else 2
        spec = super().spec
        return replace(spec, x=replace(spec.image, levels=levels))

    def load(self) -> None:
        """Read the files, and binarize the splits whose draws are fixed."""
        super().load()
        if self.binarize == "threshold":
            self.train, self.val, self.test = (
                ((x > 127).to(torch.uint8) * 255, y) for x, y in (self.train, self.val, self.test)
            )
        elif self.binarize in ("dynamic", "static"):
            if self.binarize == "static":
                self.train = binarize(self.train[0], make_generator(3)), self.train[1]
            self.val = binarize(self.val[0], make_generator(1)), self.val[1]
            self.test = binarize(self.test[0], make_generator(2)), self.test[1]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make a batch of floats in [0, 1], mirrored if `flip`, binarized if dynamic."""
        x, y = super().fetch(split, indices, generator, train=train)
        if train and self.binarize == "dynamic":
            x = torch.bernoulli(x, generator=generator_on_device_of(x, generator))
        return x, y


@register("data", "mnist")
class MNIST(GreyscaleData):
    """Handwritten digits, 28x28 grey: 55,000 training, 5,000 validation and 10,000 test images (LeCun et al. 1998)."""

    licence = "CC-BY-SA-3.0"

    torchvision_name = "MNIST"
    files = tuple(f"MNIST/raw/{s}-{c}-ubyte" for s in ("train", "t10k") for c in ("images-idx3", "labels-idx1"))
    classes = tuple("0123456789")


@register("data", "fashion_mnist")
class FashionMNIST(GreyscaleData):
    """Garments, 28x28 grey: 55,000 training, 5,000 validation, 10,000 test images (Xiao et al. 2017, 1708.07747)."""

    licence = "MIT"

    torchvision_name = "FashionMNIST"
    files = tuple(name.replace("MNIST", "FashionMNIST", 1) for name in MNIST.files)
    classes = (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip


@register("data", "cifar10")
class CIFAR10(TorchvisionData):
    """Photographs of ten classes, 32x32: 45,000 training, 5,000 validation and 10,000 test images (Krizhevsky 2009)."""

    torchvision_name = "CIFAR10"
    files = tuple(
        f"cifar-10-batches-py/{n}" for n in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    )
    image_shape = (3, 32, 32)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def parse_size(size: int | list[int] | None) -> tuple[int, int] | None:
    """Convert a `Size` setting to (height, width).

    Raises:
        DataError: neither one nor two integers of at least 1.
    """
    if size is None:
        return None
    sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
    if len(sides) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sides):
        raise DataError(f"data.size={size}: not a size. Give one number, or [height, width].")
    return sides[0], sides[1]


def resize(x: Tensor, size: tuple[int, int] | None, chunk: int = 1000) -> Tensor:
    """Resize bytes (N, C, H, W), a chunk at a time to save memory."""
    if size is None or x.shape[-2:] == size:
        return x
    parts = (F.interpolate(p.float(), size, mode="bilinear", antialias=True) for p in x.split(chunk))
    return torch.cat([p.round_().clamp_(0, 255).to(torch.uint8) for p in parts])


def binarize(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw each byte as 255 with its brightness as probability, else 0."""
    return torch.bernoulli(as_float(x), generator=generator).to(torch.uint8) * 255
