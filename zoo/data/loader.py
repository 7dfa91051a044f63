"""Loader and samplers whose order depends on (seed, epoch) alone, so that a run resumes at any batch."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from zoo.data.batch import Batch

Fetch = Callable[[Tensor, torch.Generator], Any]  # indices (B,), randomness -> (x, y) or a `Batch`


class ShuffledSampler:
    """Indices of each epoch, shuffled by (seed, epoch) and divided among processes.

    Args:
        size: number of samples.
        seed: seed of the order; None keeps the natural order and drops nothing (held-out data).
        rank: this process among `world`. Shuffled indices are divided equally, and the remainder is dropped.
            Of held-out data the last processes may get one sample fewer. With more processes than samples,
            some samples occur in two processes.
        world: number of processes.
    """

    def __init__(self, size: int, seed: int | None = None, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.rank, self.world = size, seed, rank, world

    def epoch(self, number: int) -> Tensor:
        """Return this process's indices in an epoch, int64 (N,)."""
        if self.seed is None:
            return torch.arange(self.size)[self.rank % self.size :: self.world]
        order = torch.randperm(self.size, generator=make_generator(self.seed, number))
        return order[self.rank :: self.world][: len(self)]

    def __len__(self) -> int:
        if self.seed is None:
            return len(range(self.rank % self.size, self.size, self.world))
        return self.size // self.world


class HeldOutSampler(ShuffledSampler):
    """Indices of held-out data in one fixed random order, so that a prefix of data sorted by class has every class.

    Args:
        size: number of samples.
        rank: this process among `world`; see `ShuffledSampler`.
        world: number of processes.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(size, None, rank, world)

    def epoch(self, number: int) -> Tensor:
        """Return this process's indices, int64 (N,)."""
        return fixed_order(self.size)[super().epoch(number)]


class LengthBucketSampler(ShuffledSampler):
    """Sampler whose batches hold samples of similar length, so that little is padded.

    Each epoch is shuffled, and an incomplete batch is dropped. Groups of `SPAN` batches are sorted by length,
    and then the batches are shuffled. The batches of all processes in one step have similar lengths.

    Args:
        lengths: lengths of the samples, (N,).
        batch_size: samples per batch, equal to the loader's.
        seed: seed of the order.
        rank: this process among `world`.
        world: number of processes.
    """

    SPAN = 64  # batches that are sorted together: with fewer, more padding; with more, similar batches in every epoch

    def __init__(self, lengths: Tensor, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(len(lengths), seed, rank, world)
        self.lengths, self.batch_size = lengths, batch_size

    def epoch(self, number: int) -> Tensor:
        """Return this process's indices in an epoch, batch after batch, int64 (N,)."""
        generator, step = make_generator(self.seed or 0, number), self.batch_size * self.world
        shuffled = torch.randperm(self.size, generator=generator)[: self.size // step * step]
        parts = [part[self.lengths[part].argsort(stable=True)] for part in shuffled.split(self.SPAN * step)]
        if not parts:
            return shuffled
        batches = torch.cat(parts).view(-1, self.world, self.batch_size)[:, self.rank]  # (batches, batch_size)
        return batches[torch.randperm(len(batches), generator=generator)].flatten()

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.world) * self.batch_size


class TensorLoader:
    """Loader for data in memory: one index operation per batch, without worker processes.

    Training batches form one endless stream, and each iteration continues it for one epoch's number of batches.
    So the n-th batch of a run does not depend on the trainer's epochs, which shift when a run is resumed or
    limited in length. Held-out data starts from the beginning in each iteration.

    Every process yields the same number of batches, as distributed training requires. If held-out data does not
    divide evenly, a process with one batch fewer halves its last one. A last batch of one sample is repeated.

    Args:
        fetch: makes a batch from indices; its generator depends on (seed, epoch, batch, process) alone.
        index_sampler: order of the indices. Lightning would replace an attribute named `sampler`.
        batch_size: samples per batch.
        drop_last: drop an incomplete last batch of an epoch.
        start_batch: training batches to skip, as the run has had them.
        prefetch: batches that a thread prepares in advance, for a slow `fetch`; they do not depend on it.
        device: device of the indices that `fetch` gets.
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
        self.fetch, self.index_sampler, self.batch_size = fetch, index_sampler, batch_size
        self.device = torch.device(device)
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
        """Yield the indices and the generator of each batch."""
        sampler, n, epoch = self.index_sampler, len(self), None
        first = 0 if sampler.seed is None else self.start_batch
        for place in range(first, first + n):
            number, batch = divmod(place, n)
            if number != epoch:
                epoch, order = number, sampler.epoch(number).to(self.device)
            yield self._indices(order, batch), make_generator(sampler.seed or 0, number, batch, sampler.rank)

    def _indices(self, order: Tensor, batch: int) -> Tensor:
        """Cut the indices of one batch from an epoch's, without a list of all batches."""
        filled, size = -(-len(order) // self.batch_size), self.batch_size
        if filled >= len(self) or batch < filled - 1:
            return order[batch * size : (batch + 1) * size]
        last = order[(filled - 1) * size :]  # this process has one batch fewer than others
        return (last.tensor_split(2) if len(last) > 1 else [last, last])[batch - (filled - 1)]


def fixed_order(size: int) -> Tensor:
    """Return the fixed random order of a split: a permutation of its rows that depends on their number alone, (N,).

    Every part of a split is a prefix of this order. The first rows themselves may all be of one class.
    """
    return torch.randperm(size, generator=make_generator(size))


def generator_on_device_of(x: Tensor, generator: torch.Generator) -> torch.Generator:
    """Return a generator on the device of x: the given one, or one of the same seed."""
    if x.device == generator.device:
        return generator
    return torch.Generator(x.device).manual_seed(generator.initial_seed())


def make_generator(*numbers: int) -> torch.Generator:
    """Make a generator whose state depends on all of the numbers."""
    state = 0
    for number in numbers:  # splitmix64, so that neighbouring numbers give unrelated streams
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
