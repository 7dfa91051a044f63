"""Base class of datamodules whose splits are tensors in memory."""

from typing import Any, ClassVar

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.errors import DataError, HardwareError, ZooError
from zoo.core.lightning_tips import hide_tips
from zoo.core.spec import DataSpec
from zoo.data.loader import HeldOutSampler, ShuffledSampler, TensorLoader
from zoo.io.memory import out_of_memory

hide_tips()

Split = tuple[Tensor, Tensor]  # all x (N, ...) and all y (N, ...) of a split
GPU_FRACTION = 8  # data below an eighth of the GPU's memory is kept there


class DataModule(L.LightningDataModule):
    """Three fixed splits, and a `spec` that describes a sample.

    A subclass provides `spec`, which must not download anything, and `load`, which reads the data.
    The order of training batches depends on (seed, epoch) alone.

    Args:
        batch_size: samples per batch, in each process.
        seed: seed of the training order and of random transformations; the splits do not depend on it.
    """

    registered_name: ClassVar[str]
    # True if `fetch` accepts indices on a GPU, as it takes all tensors by `on_device`. None: only if not overridden.
    keep_on_gpu: bool | None = None
    variant: str = ""  # part of a metric's name, for variants whose numbers cannot be compared
    prompted: ClassVar[bool] = False  # samples are prompts with answers; `pairs(split)` returns them
    factor_names: ClassVar[tuple[str, ...]] = ()  # of known factors of variation, which `factors` returns
    held_out_partners: bool = False  # of two domains: y of a held-out sample is the true partner of x
    licence: ClassVar[str] = ""  # of the data: an SPDX identifier, "generated", or empty if it is not known
    flip: bool = False  # training shows images mirrored left to right at random
    prefetch: int = 0  # batches prepared in advance, for a slow `fetch`
    usual_batch_size: int | None = None  # that nobody chose: `setup` limits it
    train: Split
    val: Split
    test: Split

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size, self.seed, self._loaded = batch_size, seed, False
        self.details: dict[str, str] = {}  # further lines of the console before training
        self._moved: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}  # see `on_device`

    @property
    def spec(self) -> DataSpec:
        """Space of a sample and its condition."""
        raise NotImplementedError

    def load(self) -> None:
        """Read the data and set `train`, `val` and `test`."""
        raise NotImplementedError

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make a batch from rows of a split, augmented if `train`."""
        x, y = (self.on_device(indices, part).index_select(0, indices) for part in split)  # faster than part[indices]
        return x, y

    def factors(self, x: Tensor) -> Tensor:
        """Values of the known factors, from 0, of the first part of a split (N, ...): int64 (N, F)."""
        raise NotImplementedError

    def views(self, x: Tensor) -> list[Tensor]:
        """Forms in which training shows samples (B, *shape): they and, if mirrored at random, their mirror images."""
        return [x, x.flip(-1)] if self.flip else [x]

    def resident_tensors(self) -> list[Tensor]:
        """List all tensors that batches are cut from."""
        return [*self.train, *self.val, *self.test]

    def batch_device(self, device: torch.device) -> torch.device:
        """Choose where batches are cut: on the model's device if the data fits there, else on the host."""
        keep = type(self).fetch is DataModule.fetch if self.keep_on_gpu is None else self.keep_on_gpu
        if not keep or device.type != "cuda":
            return torch.device("cpu")
        size = sum(x.numel() * x.element_size() for x in self.resident_tensors())
        return (
            device
            if size * GPU_FRACTION < torch.cuda.get_device_properties(device).total_memory
            else torch.device("cpu")
        )

    def on_device(self, indices: Tensor, whole: Tensor) -> Tensor:
        """Copy a tensor to the device of the indices, once."""
        if whole.device == indices.device:
            return whole
        key = id(whole), indices.device
        if key not in self._moved:
            self._moved[key] = whole, whole.to(indices.device)  # a reference to `whole` keeps its id unique
        return self._moved[key][1]

    def setup(self, stage: str | None = None) -> None:
        """Load the data once; a batch size that nobody chose is at most a quarter of the training set.

        Raises:
            DataError: the data cannot be read, or a batch is larger than the training set.
            HardwareError: the data do not fit into memory.
        """
        if self._loaded:
            return
        try:
            self.load()
        except (RuntimeError, MemoryError, ZooError) as error:
            if not out_of_memory(error):
                raise
            raise HardwareError(
                f"data={self._label}: out of memory. Choose fewer or smaller samples, or free some memory."
            ) from None
        self._loaded = True
        if self.batch_size == self.usual_batch_size:
            self.batch_size = self._limited(self.batch_size)
        self.check_batches(1 if self.trainer is None else self.trainer.world_size)

    def limit_batch_size(self, usual: int) -> None:
        """Load, and set the batch size to `usual`, or to a quarter of a training set where that is less."""
        self.batch_size = 1
        self.setup()
        self.batch_size = self._limited(usual)

    def _limited(self, batch_size: int) -> int:
        return min(batch_size, max(len(self.train[0]) // 4, 1))

    @property
    def _label(self) -> str:
        return getattr(self, "registered_name", type(self).__name__)

    def check_model(self, model: Any) -> None:
        """Check that a model may be trained on these data; the default accepts all."""

    def check_batches(self, world: int) -> None:
        """Check that each of `world` processes gets at least one batch.

        Raises:
            DataError: a batch is larger than a process's share of the training set.
        """
        size = len(self.train[0]) // world
        if self.batch_size > size:
            share = "" if world == 1 else f" in each of {world} processes"
            raise DataError(
                f"data.batch_size={self.batch_size}: larger than the training set of {self._label} "
                f"({size} samples{share}). Set data.batch_size={size} or less."
            )

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches from the trainer's current one; an incomplete last batch is dropped."""
        rank, world, start_batch = 0, 1, 0
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            # Not `ready`: a batch that an exception interrupted must be repeated.
            start_batch = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return self._loader(self.train, self.train_sampler(rank, world), train=True, start_batch=start_batch)

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """Sampler of a process's training indices."""
        return ShuffledSampler(len(self.train[0]), self.seed, rank, world)

    def fitting_dataloader(self) -> TensorLoader:
        """The whole training set once, shuffled: for models that are fitted, not trained."""
        loader = self._loader(self.train, ShuffledSampler(len(self.train[0]), self.seed), train=True)
        loader.drop_last = False
        return loader

    def val_dataloader(self) -> TensorLoader:
        """Every sample once, in the fixed order of `zoo.data.loader.fixed_order`."""
        return self._held_out(self.val)

    def test_dataloader(self) -> TensorLoader:
        """Every sample once, in the fixed order of `zoo.data.loader.fixed_order`."""
        return self._held_out(self.test)

    def _held_out(self, split: Split) -> TensorLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(split, HeldOutSampler(len(split[0]), rank, world), train=False)

    def _loader(self, split: Split, sampler: ShuffledSampler, *, train: bool, start_batch: int = 0) -> TensorLoader:
        device = torch.device("cpu") if self.trainer is None else self.batch_device(self.trainer.strategy.root_device)
        return TensorLoader(
            lambda indices, generator: self.fetch(split, indices, generator, train=train),
            sampler,
            self.batch_size,
            drop_last=train,
            start_batch=start_batch,
            prefetch=self.prefetch,
            device=device,
        )


def as_float(pixels: Tensor) -> Tensor:
    """Convert bytes from 0 to 255 to floats in [0, 1]."""
    return pixels.float().div_(255)


def random_hflip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (B, C, H, W) left to right with probability 1/2."""
    mirror = (torch.rand(len(x), generator=generator) < 0.5).to(x.device, non_blocking=True)
    return torch.where(mirror[:, None, None, None], x.flip(-1), x)
