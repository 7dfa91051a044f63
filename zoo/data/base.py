"""The contract of a datamodule, and the one that keeps everything in memory."""

from typing import ClassVar

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spec import DataSpec
from zoo.data.loader import ShuffledSampler, TensorLoader

Split = tuple[Tensor, Tensor]  # all x (N, ...) and all y (N, ...) of a split
SHARE = 8  # data that takes less than an eighth of a GPU's memory is kept there


class DataModule(L.LightningDataModule):
    """Three fixed splits of one kind of data, and a `spec` that says what a sample is.

    A subclass provides `spec` (cheap where it can be: nothing may be downloaded for it) and `load`, which
    reads the data. Training batches come in an order that depends on (seed, epoch) alone.

    Args:
        batch_size: samples a batch, in each process.
        seed: of the training order and of random transformations; the splits never depend on it.
    """

    registered_name: ClassVar[str]
    # May `fetch` get its indices on a GPU, since it takes all tensors by `on_device`? None: if it is the one below.
    keep_on_gpu: bool | None = None
    variant: str = ""  # of the data, where numbers of several cannot be compared: part of a metric's name
    prompted: ClassVar[bool] = False  # samples are prompts with answers; `pairs(split)` returns them
    prefetch: int = 0  # batches prepared in advance, where `fetch` takes longer than indexing
    train: Split
    val: Split
    test: Split

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size, self.seed, self._loaded = batch_size, seed, False
        self._moved: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}  # see `on_device`

    @property
    def spec(self) -> DataSpec:
        """What one sample is."""
        raise NotImplementedError

    def load(self) -> None:
        """Read the data and set `train`, `val` and `test`."""
        raise NotImplementedError

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """One batch: rows of a split, in the form that `spec` promises; the place for augmentation."""
        x, y = (self.on_device(indices, part).index_select(0, indices) for part in split)  # faster than part[indices]
        return x, y

    def resident_tensors(self) -> list[Tensor]:
        """All tensors that batches are cut from."""
        return [*self.train, *self.val, *self.test]

    def batch_device(self, device: torch.device) -> torch.device:
        """Where batches for a model on some device are cut: there, if all of the data fits well; else on the host."""
        keep = type(self).fetch is DataModule.fetch if self.keep_on_gpu is None else self.keep_on_gpu
        if not keep or device.type != "cuda":
            return torch.device("cpu")
        size = sum(x.numel() * x.element_size() for x in self.resident_tensors())
        return device if size * SHARE < torch.cuda.get_device_properties(device).total_memory else torch.device("cpu")

    def on_device(self, indices: Tensor, whole: Tensor) -> Tensor:
        """A tensor of the data where the indices are; it is moved there once, and kept."""
        if whole.device == indices.device:
            return whole
        key = id(whole), indices.device
        if key not in self._moved:
            self._moved[key] = whole, whole.to(indices.device)  # with the first, whose number is its own while it lives
        return self._moved[key][1]

    def setup(self, stage: str | None = None) -> None:
        """Load once.

        Raises:
            DataError: a batch would be larger than the training set.
        """
        if self._loaded:
            return
        self.load()
        self._loaded = True
        self.check_batches(1 if self.trainer is None else self.trainer.world_size)

    def limit_batch_size(self, usual: int) -> None:
        """Load, and set the batch size to `usual`, or to a quarter of a training set where that is less."""
        self.batch_size = 1
        self.setup()
        self.batch_size = min(usual, max(len(self.train[0]) // 4, 1))

    def check_batches(self, world: int) -> None:
        """Is there a batch for each of so many processes?

        Raises:
            DataError: a batch would be larger than a process's share of the training set.
        """
        name = getattr(self, "registered_name", type(self).__name__)
        size = len(self.train[0]) // world
        if self.batch_size > size:
            share = "" if world == 1 else f" in each of {world} processes"
            raise DataError(
                f"data.batch_size={self.batch_size} is larger than the training set of {name} "
                f"({size} samples{share}): choose data.batch_size={size} or less."
            )

    def train_dataloader(self) -> TensorLoader:
        """Shuffled; incomplete last batches are dropped; begins where the trainer's clock stands."""
        rank, world, start_batch = 0, 1, 0
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            # Processed, not ready: a batch that an exception interrupted has to come again.
            start_batch = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return self._loader(self.train, self.train_sampler(rank, world), train=True, start_batch=start_batch)

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """The order of a process's training samples."""
        return ShuffledSampler(len(self.train[0]), self.seed, rank, world)

    def fitting_dataloader(self) -> TensorLoader:
        """The training set once, shuffled, nothing left out: for what is fitted rather than trained."""
        loader = self._loader(self.train, ShuffledSampler(len(self.train[0]), self.seed), train=True)
        loader.drop_last = False
        return loader

    def val_dataloader(self) -> TensorLoader:
        """Every sample once, in natural order."""
        return self._held_out(self.val)

    def test_dataloader(self) -> TensorLoader:
        """Every sample once, in natural order."""
        return self._held_out(self.test)

    def _held_out(self, split: Split) -> TensorLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(split, ShuffledSampler(len(split[0]), None, rank, world), train=False)

    def _loader(self, split: Split, order: ShuffledSampler, *, train: bool, start_batch: int = 0) -> TensorLoader:
        device = torch.device("cpu") if self.trainer is None else self.batch_device(self.trainer.strategy.root_device)
        return TensorLoader(
            lambda indices, generator: self.fetch(split, indices, generator, train=train),
            order,
            self.batch_size,
            drop_last=train,
            start_batch=start_batch,
            prefetch=self.prefetch,
            device=device,
        )


def as_float(pixels: Tensor) -> Tensor:
    """Bytes 0 to 255 to floats 0 to 1."""
    return pixels.float().div_(255)


def random_hflip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each mirrored left to right with probability one half."""
    mirror = (torch.rand(len(x), generator=generator) < 0.5).to(x.device, non_blocking=True)
    return torch.where(mirror[:, None, None, None], x.flip(-1), x)
