"""Batches by index, in an order that depends on (seed, epoch) alone, so that a run can be taken up anywhere."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

Fetch = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]  # indices (B,), randomness -> (x, y)


class Order(Sampler[int]):
    """The indices of one epoch: shuffled by (seed, epoch), dealt out to processes, entered part-way on resume.

    Args:
        size: number of samples.
        seed: None keeps the natural order.
        epoch: the epoch to begin with.
        skip: samples of this process to leave out in that first epoch.
        rank: this process among `world`; every process gets equally many indices, the odd rest is left out.
        world: number of processes.
    """

    def __init__(
        self, size: int, seed: int | None = None, epoch: int = 0, skip: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.size, self.seed, self.epoch, self.skip, self.rank, self.world = size, seed, epoch, skip, rank, world

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def indices(self) -> Tensor:
        """This process's indices of the current epoch, int64 (N,)."""
        if self.seed is None:
            order = torch.arange(self.size)
        else:
            order = torch.randperm(self.size, generator=seeded(self.seed, self.epoch))
        dealt = order[self.rank :: self.world][: len(self)]
        skip, self.skip = self.skip, 0
        return dealt[skip:]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def __len__(self) -> int:
        # Held-out data is never dropped: there the last processes may get one sample fewer.
        if self.seed is None:
            return len(range(self.rank, self.size, self.world))
        return self.size // self.world


class IndexLoader:
    """A loader for data that lives in memory: one index operation a batch, no workers, no copies.

    Args:
        fetch: makes a batch from indices; its generator depends on (seed, epoch, batch) alone.
        order: which indices; Lightning finds `set_epoch` on `self.sampler`.
        batch_size: samples a batch.
        drop_last: leave out the last batch where it would be smaller.
    """

    def __init__(self, fetch: Fetch, order: Order, batch_size: int, *, drop_last: bool) -> None:
        self.fetch, self.sampler, self.batch_size, self.drop_last = fetch, order, batch_size, drop_last

    def __len__(self) -> int:
        size = len(self.sampler)
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first = self.sampler.skip // self.batch_size
        indices = self.sampler.indices()
        for number, chosen in enumerate(indices.split(self.batch_size), first):
            if self.drop_last and len(chosen) < self.batch_size:
                return
            yield self.fetch(chosen, seeded(self.sampler.seed or 0, self.sampler.epoch, number, self.sampler.rank))


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all of the numbers."""
    state = 0
    for number in numbers:  # a 64-bit mixing step (splitmix64), so that neighbouring numbers give unrelated streams
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
