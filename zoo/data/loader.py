"""Batches by index, in an order that depends on (seed, epoch) alone: a run can be taken up anywhere."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from zoo.data.batch import Batch

Fetch = Callable[[Tensor, torch.Generator], Any]  # indices (B,), randomness -> (x, y) or a `Batch`


class ShuffledSampler:
    """The indices of every epoch: shuffled by (seed, epoch), and dealt out to processes.

    Args:
        size: number of samples.
        seed: None keeps the natural order, in every epoch, and leaves nothing out: held-out data.
        rank: this process among `world`; every process gets equally many shuffled indices, the odd rest is
            left out. Of held-out data the last processes may get one sample fewer than the others (and where
            there are more processes than samples, some get one that another has too).
        world: number of processes.
    """

    def __init__(self, size: int, seed: int | None = None, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.rank, self.world = size, seed, rank, world

    def epoch(self, number: int) -> Tensor:
        """This process's indices in an epoch, int64 (N,)."""
        if self.seed is None:
            return torch.arange(self.size)[self.rank % self.size :: self.world]
        order = torch.randperm(self.size, generator=make_generator(self.seed, number))
        return order[self.rank :: self.world][: len(self)]

    def __len__(self) -> int:
        if self.seed is None:
            return len(range(self.rank % self.size, self.size, self.world))
        return self.size // self.world


class LengthBucketSampler(ShuffledSampler):
    """A shuffled order in which the samples of a batch are about equally long, so that little is padded.

    Each epoch is shuffled, the rest that fills no batch is left out, stretches of `SPAN` batches are sorted by length,
    and then the batches are shuffled. What processes get at the same time is about equally long too.

    Args:
        lengths: of the samples, (N,).
        batch_size: samples a batch, which the loader must have too.
        seed: of the order.
        rank: this process among `world`.
        world: number of processes.
    """

    SPAN = 64  # batches that are sorted together: fewer pad more, more make batches alike in every epoch

    def __init__(self, lengths: Tensor, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(len(lengths), seed, rank, world)
        self.lengths, self.batch_size = lengths, batch_size

    def epoch(self, number: int) -> Tensor:
        """This process's indices in an epoch, int64 (N,): batch after batch."""
        generator, together = make_generator(self.seed or 0, number), self.batch_size * self.world
        shuffled = torch.randperm(self.size, generator=generator)[: self.size // together * together]
        parts = [part[self.lengths[part].argsort(stable=True)] for part in shuffled.split(self.SPAN * together)]
        if not parts:
            return shuffled
        batches = torch.cat(parts).view(-1, self.world, self.batch_size)[:, self.rank]  # (batches, batch_size)
        return batches[torch.randperm(len(batches), generator=generator)].flatten()

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.world) * self.batch_size


class TensorLoader:
    """A loader for data that lives in memory: one index operation a batch, no workers, no copies.

    Training batches are one endless stream, epoch after epoch, and each iteration goes on where the last one
    stopped, for as many batches as an epoch has. So the n-th batch of a run is the same whatever the trainer
    counts as an epoch: Lightning's epochs drift when a run is taken up from the end of one, or are limited in
    length. Held-out data begins anew each time.

    Every process gives equally many batches, which distributed training needs; where held-out data does not
    divide evenly, a process that would be one batch short halves its last one (or gives it twice, where it
    holds one sample).

    Args:
        fetch: makes a batch from indices; its generator depends on (seed, epoch, batch, process) alone.
        index_sampler: which indices.
        batch_size: samples a batch.
        drop_last: leave out the last batch of an epoch where it would be smaller.
        start_batch: training batches that the run has had already.
        prefetch: batches that a thread prepares in advance, where fetching takes longer than indexing; the
            batches are the same for every value.
        device: where `fetch` gets its indices; those of an epoch go there at once.
    """

    def __init__(
        self,
        fetch: Fetch,
        index_sampler: ShuffledSampler,
        batch_size: int,
        *,
        drop_last: bool,
        start_batch: int = 0,
        prefetch: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.fetch, self.index_sampler, self.batch_size, self.device = (
            fetch,
            index_sampler,
            batch_size,
            torch.device(device),
        )
        self.drop_last, self.start_batch, self.prefetch = drop_last, start_batch, prefetch

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.index_sampler) // self.batch_size
        longest = -(-self.index_sampler.size // self.index_sampler.world)  # of any process
        return -(-longest // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._fetched():
            if self.index_sampler.seed is not None:
                self.start_batch += 1
            yield batch

    def _fetched(self) -> Iterator[Batch]:
        if not self.prefetch:
            for indices, generator in self._jobs():
                yield Batch.of(self.fetch(indices, generator))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            waiting: deque[Future[Any]] = deque()
            for indices, generator in self._jobs():
                waiting.append(thread.submit(self.fetch, indices, generator))
                if len(waiting) > self.prefetch:
                    yield Batch.of(waiting.popleft().result())
            while waiting:
                yield Batch.of(waiting.popleft().result())

    def _jobs(self) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Indices and randomness of the coming batches."""
        first, n, epoch = self.start_batch if self.index_sampler.seed is not None else 0, len(self), None
        for place in range(first, first + n):
            number, batch = divmod(place, n)
            if number != epoch:
                epoch, order = number, self.index_sampler.epoch(number).to(self.device)
            yield (
                self._indices(order, batch),
                make_generator(self.index_sampler.seed or 0, number, batch, self.index_sampler.rank),
            )

    def _indices(self, order: Tensor, batch: int) -> Tensor:
        """Those of one batch of an epoch; a list of all batches would take more memory than the order."""
        filled, size = -(-len(order) // self.batch_size), self.batch_size
        if filled >= len(self) or batch < filled - 1:
            return order[batch * size : (batch + 1) * size]
        last = order[(filled - 1) * size :]  # the process dealt one sample fewer than others, all its batches full
        return (last.tensor_split(2) if len(last) > 1 else [last, last])[batch - (filled - 1)]


def generator_on_device_of(x: Tensor, generator: torch.Generator) -> torch.Generator:
    """A generator on the device of x: the given one, or one of the same seed."""
    if x.device == generator.device:
        return generator
    return torch.Generator(x.device).manual_seed(generator.initial_seed())


def make_generator(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all of the numbers."""
    state = 0
    for number in numbers:  # a 64-bit mixing step (splitmix64), so that neighbouring numbers give unrelated streams
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
