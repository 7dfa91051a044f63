"""Data that a frozen encoder replaces by its latents, stored where they are the same in every epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.batch import Batch
from zoo.data.loader import ShuffledSampler, TensorLoader, make_generator

CHUNK = 500  # samples that are encoded together
PROBED = 64  # samples that are fetched twice, to find out whether training data are augmented


@dataclass
class Encoded(Batch):
    """A batch whose x are latents already."""


class EncodedData(DataModule):
    """The data, whose loaders yield latents as `Encoded` batches; `fetch` gives the data themselves.

    A split is encoded once, when its first loader is made. Training data that differ from epoch to epoch are not
    stored: their loaders yield data.

    Args:
        data: the data; loaded on `setup`.
        encode: data (B, *shape) -> latents (B, ...), on the CPU or on the model's device.
    """

    def __init__(self, data: DataModule, encode: Callable[[Tensor], Tensor]) -> None:
        super().__init__(data.batch_size, data.seed)
        self.data, self.encode = data, encode
        self.registered_name, self.variant, self.flip = data.registered_name, data.variant, data.flip  # type: ignore[misc]
        whole = type(data).fetch is DataModule.fetch
        self.prefetch, self.keep_on_gpu = data.prefetch, whole if data.keep_on_gpu is None else data.keep_on_gpu
        self.latents: dict[int, Tensor] = {}  # by the identity of the split's samples

    @property
    def spec(self) -> DataSpec:
        """Spaces of the data."""
        return self.data.spec

    def load(self) -> None:
        """Take the splits of the data."""
        self.data.setup()
        self.train, self.val, self.test = self.data.train, self.data.val, self.data.test

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Any:
        """See the data."""
        return self.data.fetch(split, indices, generator, train=train)

    def views(self, x: Tensor) -> list[Tensor]:
        """See the data."""
        return self.data.views(x)

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """See the data."""
        return self.data.train_sampler(rank, world)

    def augmented(self) -> bool:
        """Whether two epochs show other training data."""
        rows = torch.arange(min(PROBED, len(self.train[0])))
        one, two = (Batch.of(self.fetch(self.train, rows, make_generator(seed), train=True)).x for seed in (1, 2))
        return not torch.equal(one, two)

    def _loader(self, split: Split, sampler: ShuffledSampler, *, train: bool, start_batch: int = 0) -> TensorLoader:
        loader = super()._loader(split, sampler, train=train, start_batch=start_batch)
        if train and self.augmented():
            return loader
        if id(split[0]) not in self.latents:
            rows = torch.arange(len(split[0])).split(CHUNK)
            parts = [Batch.of(self.fetch(split, some, make_generator(0), train=train)).x for some in rows]
            self.latents[id(split[0])] = torch.cat([self.encode(x).cpu() for x in parts])
        latents, labels = self.latents[id(split[0])], split[1]

        def fetch(indices: Tensor, generator: torch.Generator) -> Encoded:
            return Encoded(*(self.on_device(indices, part).index_select(0, indices) for part in (latents, labels)))

        loader.fetch, loader.prefetch = fetch, 0
        return loader


class LatentView(DataModule):
    """The data as latents for everything that reads them: `fetch` gives latents.

    Args:
        data: loaded data.
        spec: of the latents.
        encode: batch of data -> batch of latents.
    """

    def __init__(self, data: DataModule, spec: DataSpec, encode: Callable[[Batch], Batch]) -> None:
        super().__init__(data.batch_size, data.seed)
        self.data, self._spec, self.encode = data, spec, encode
        self.train, self.val, self.test = data.train, data.val, data.test

    @property
    def spec(self) -> DataSpec:
        """Of the latents."""
        return self._spec

    def load(self) -> None:
        """Nothing: the data are loaded."""

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Latents of rows of a split, and their labels, on the CPU."""
        batch = self.encode(Batch.of(self.data.fetch(split, indices, generator, train=train)))
        return batch.x.cpu(), batch.y.cpu()
