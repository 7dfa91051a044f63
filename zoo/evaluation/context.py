"""What metrics are measured with: a model beside the data that it learned, held-out data and samples.

A metric's name carries its protocol: `fd_digits@1437_test` is a Frechet distance in the features of the digit
classifier, of 1,437 samples against the test split. Its floor is what real data score in the samples' place.
`zoo.evaluation.suites.samples` measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo.data.base import DataModule, Split
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.evaluation.features.base import Features, features_for
from zoo.models.base import Model

MOST = 10_000  # samples, and held-out data to compare with: pairs of them fit in memory
VALUES = 2**28  # numbers in all samples together: 1 GB as float32
BATCH = 250

Better = Literal["lower", "higher", "floor"]  # "floor": the nearer to what real data score
Scores = dict[str, "Metric"]


@dataclass(frozen=True)
class Metric:
    """One number.

    Args:
        value: measured.
        better: what it should be like.
        floor: what real data get in the model's place.
        error: standard error, where the number is a mean.
        parts: what it is the sum of.
        note: what a rerun needs beyond the name, such as sacrebleu's signature.
    """

    value: float
    better: Better
    floor: float | None = None
    error: float | None = None
    parts: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate.

    Args:
        split: "test", or "val" while choices are still being made.
        samples: how many to draw; None is as many as there are training data, at most `MOST`, fewer if they are large.
        k: importance samples in the bound of a latent-variable model.
        features: which, see `zoo.evaluation.features.base.features_for`.
        weights: file of a feature network that does not come with the zoo.
        seed: of samples, latents and subsets.
    """

    split: Literal["val", "test"] = "test"
    samples: int | None = None
    k: int = 100
    features: str = "auto"
    weights: Path | None = None
    seed: int = 0


class EvaluationContext:
    """A model beside the data that it learned, held-out data and samples: each made once, when first asked for.

    Args:
        model: in eval mode, on its device.
        data: loaded.
        protocol: how to evaluate.
    """

    def __init__(self, model: Model, data: DataModule, protocol: EvaluationConfig) -> None:
        self.model, self.data, self.protocol = model, data, protocol
        self.held: Split = getattr(data, protocol.split)

    def real(self, split: Split, indices: Tensor, *, train: bool) -> Split:
        """Data of a split as the model sees them, (N, *shape) and labels (N,)."""
        parts = [
            self.data.fetch(split, some, make_generator(self.protocol.seed, number), train=train)
            for number, some in enumerate(indices.split(BATCH))
        ]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    @property
    def room(self) -> int:
        """How many data may be held at once."""
        return max(VALUES // self.data.spec.size, 2)

    @cached_property
    def held_out(self) -> Split:
        """Of the split, all or the first `MOST`, fewer if they are large."""
        return self.real(self.held, torch.arange(min(len(self.held[0]), MOST, self.room)), train=False)

    def batches(self, size: int = BATCH) -> Iterator[Batch]:
        """The whole split in its own order, on the model's device."""
        for some in torch.arange(len(self.held[0])).split(size):
            fetched = self.data.fetch(self.held, some, make_generator(self.protocol.seed), train=False)
            yield Batch.of(fetched).to(self.model.device)

    @cached_property
    def training(self) -> Tensor:
        """As many training data as samples, chosen at random: what the floors are measured with."""
        order = torch.randperm(len(self.data.train[0]), generator=make_generator(self.protocol.seed, 1))
        return self.real(self.data.train, order[: self.n], train=True)[0]

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.protocol.samples or min(len(self.data.train[0]), MOST, self.room)

    @cached_property
    def drawn(self) -> Split:
        """Samples (n, *shape) on the CPU and the classes that were asked for, of an unconditional model all zero."""
        x, y = [], []
        for number, some in enumerate(torch.arange(self.n).split(BATCH)):
            generator = make_generator(self.protocol.seed, 2, number)
            asked = some % max(self.data.spec.n_classes, 1)
            given = asked if self.model.conditional else None
            x.append(self.model.sample(len(some), condition=given, generator=generator).cpu().float())
            y.append(asked if given is not None else torch.zeros_like(asked))
        return torch.cat(x), torch.cat(y)

    @cached_property
    def features(self) -> Features:
        """The network in whose features samples are compared."""
        return features_for(self.data.spec, self.protocol.features, self.protocol.weights, data=self.data)

    def described(self) -> dict[str, str]:
        """The features that were used, and the hash of their weights."""
        used: Features | None = self.__dict__.get("features")
        return {} if used is None else {"name": used.name, "sha256": used.sha256}

    def name(self, metric: str, n: int | None = None) -> str:
        """`fd_digits@1437_test`: the metric, how many data, the split and the variant of the data."""
        size = len(self.held[0]) if n is None else n
        return "_".join(filter(None, [f"{metric}@{count(size)}", self.protocol.split, self.data.variant]))


def count(n: int) -> str:
    """10000 -> "10k", 1437 -> "1437"."""
    return f"{n // 1000}k" if n % 1000 == 0 and n else str(n)
