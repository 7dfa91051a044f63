"""Batches by index, in an order that depends on (seed, epoch) alone: a run can be taken up anywhere."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import Sampler

Fetch = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]  # indices (B,), randomness -> (x, y)


class Order(Sampler[int]):
    """The indices of one epoch: shuffled by (seed, epoch), dealt to processes, entered part-way on resume.

    Args:
        size: number of samples.
        seed: None keeps the natural order, in every epoch, and leaves nothing out: held-out data.
        epoch: the epoch to begin with.
        skip: samples of this process to leave out in that first epoch.
        rank: this process among `world`; every process gets equally many shuffled indices, the odd rest is
            left out.
        world: number of processes.
    """

    def __init__(
        self, size: int, seed: int | None = None, epoch: int = 0, skip: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.size, self.seed, self.epoch, self.skip, self.rank, self.world = (
            size,
            seed,
            epoch,
            skip,
            rank,
            world,
        )

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, for held-out data too, which stays as it is."""
        if self.seed is not None and epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def indices(self) -> Tensor:
        """This process's indices of the current epoch, int64 (N,)."""
        if self.seed is None:
            return torch.arange(self.size)[self.rank % self.size :: self.world]
        order = torch.randperm(self.size, generator=seeded(self.seed, self.epoch))
        dealt = order[self.rank :: self.world][: len(self)]
        skip, self.skip = self.skip, 0
        return dealt[skip:]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def __len__(self) -> int:
        # Held-out data is never dropped: there the last processes may get one sample fewer (and where there
        # are more processes than samples, some get one that another has too).
        if self.seed is None:
            return len(range(self.rank % self.size, self.size, self.world))
        return self.size // self.world


class IndexLoader:
    """A loader for data that lives in memory: one index operation a batch, no workers, no copies.

    Every process gives equally many batches, which distributed training needs; where held-out data does not
    divide evenly, a process that would be one batch short halves its last one (or gives it twice, where it
    holds one sample).

    Args:
        fetch: makes a batch from indices; its generator depends on (seed, epoch, batch) alone.
        order: which indices; Lightning finds `set_epoch` on `self.sampler`.
        batch_size: samples a batch.
        drop_last: leave out the last batch where it would be smaller.
        ahead: batches that a thread prepares in advance, where fetching takes longer than indexing; the
            batches are the same for every value.
    """

    batch_sampler = None  # Lightning looks for one beside `sampler`

    def __init__(
        self, fetch: Fetch, order: Order, batch_size: int, *, drop_last: bool, ahead: int = 0
    ) -> None:
        self.fetch, self.sampler, self.batch_size = fetch, order, batch_size
        self.drop_last, self.ahead = drop_last, ahead

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.sampler) // self.batch_size
        longest = -(-self.sampler.size // self.sampler.world)  # of any process
        return -(-longest // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: Lightning asks for the iterator before it sets the epoch, and takes the first batch
        # after.
        order, first = self.sampler, self.sampler.skip // self.batch_size
        chosen = self._batches(order.indices())
        seeds = [
            (order.seed or 0, order.epoch, number, order.rank) for number in range(first, first + len(chosen))
        ]
        jobs = zip(chosen, seeds, strict=True)
        if not self.ahead:
            for indices, seed in jobs:
                yield self.fetch(indices, seeded(*seed))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
            for indices, seed in jobs:
                waiting.append(thread.submit(self.fetch, indices, seeded(*seed)))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _batches(self, indices: Tensor) -> list[Tensor]:
        chosen = list(indices.split(self.batch_size))
        if self.drop_last:
            return [batch for batch in chosen if len(batch) == self.batch_size]
        if len(chosen) < len(self):  # the process dealt one sample fewer than others, all its batches full
            chosen[-1:] = chosen[-1].tensor_split(2) if len(chosen[-1]) > 1 else [chosen[-1], chosen[-1]]
        return chosen


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all of the numbers."""
    state = 0
    for (
        number
    ) in numbers:  # a 64-bit mixing step (splitmix64), so that neighbouring numbers give unrelated streams
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
