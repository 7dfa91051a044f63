"""Base class of sounds of equal length."""

import torch
from torch import Tensor

from zoo.core.spaces import Audio, Label
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split

FULL = 2**15 - 1  # largest level of 16 bits


class Segments(DataModule):
    """Sounds with one channel and an equal number of samples; a subclass provides `read`.

    Samples are kept with 16 bits, and are float in batches.

    Args:
        samples: of a sound.
        sample_rate: in Hz.
        n_classes: of the labels; 0 for none.
        batch_size: sounds per batch.
        seed: seed of the training order.
    """

    def __init__(self, samples: int, sample_rate: int, n_classes: int, batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self.samples, self.sample_rate, self.n_classes = samples, sample_rate, n_classes

    @property
    def spec(self) -> DataSpec:
        """Waveforms (1, samples)."""
        label = Label(self.n_classes) if self.n_classes else None
        return DataSpec(Audio(1, self.samples, self.sample_rate), label, name=self.registered_name)

    def read(self) -> tuple[Split, Split, Split]:
        """Sounds (N, samples), float in [-1, 1], and labels (N,), of each split."""
        raise NotImplementedError

    def load(self) -> None:
        """Keep the sounds with 16 bits."""
        parts = [((x.clamp(-1, 1) * FULL).round().to(torch.int16), y) for x, y in self.read()]
        self.train, self.val, self.test = parts

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make a batch: float (B, 1, samples)."""
        x, y = super().fetch(split, indices, generator, train=train)
        return (x.float() / FULL)[:, None], y


def cut(x: Tensor, samples: int) -> Tensor:
    """Cut a sound (N,) into adjacent segments (S, samples); the last one is filled with zeros."""
    count = max(-(-len(x) // samples), 1)
    return torch.cat([x, x.new_zeros(count * samples - len(x))]).view(count, samples)
