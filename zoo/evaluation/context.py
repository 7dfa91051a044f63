"""Context of an evaluation: a model, its data, samples, features.

The name of a metric contains its protocol. `fd_digits@1437_test` is a Frechet distance between 1,437 samples and the
test split, in the features of the digit classifier. `fd_digits@1437_test_steps=2` is that of samples in 2 steps. The
real data reference is the metric of training data in place of samples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.spaces import Tokens
from zoo.data.base import DataModule, Split
from zoo.data.batch import Batch
from zoo.data.loader import fixed_order, make_generator
from zoo.evaluation.features.base import Features, features_for
from zoo.models.base import Model

MAX_SAMPLES = 10_000  # so that matrices of pairwise distances fit in memory
MAX_VALUES = 2**28  # numbers in all samples: 1 GB as float32
BATCH = 250

SplitName = Literal["test", "val", "held_out"]
Better = Literal["lower", "higher", "reference"]  # "reference": near the real data reference
Scores = dict[str, "Metric"]


@dataclass(frozen=True)
class Metric:
    """Value of a metric.

    Args:
        value: measured.
        better: which values are better.
        real_data_reference: the metric of real data in place of samples.
        error: standard error of a mean; of a metric of samples, the standard deviation over draws.
        parts: summands of a sum.
        note: further parameters, such as sacrebleu's signature.
    """

    value: float
    better: Better
    real_data_reference: float | None = None
    error: float | None = None
    parts: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation protocol.

    Args:
        split: "test"; "val" for model selection; "held_out" for both together, so that metrics of samples have a larger
            reference. Validation data have chosen best.ckpt, so prefer last.ckpt there.
        samples: number of samples; None for the size of the training set, limited by `MAX_SAMPLES` and memory.
        k: importance samples in the bound of a latent-variable model.
        features: see `zoo.evaluation.features.base.features_for`.
        weights: weights file of an external feature network.
        seed: of samples, latents and subsets.
        draws: sets of samples, with seeds from `seed` on; metrics of samples are means over them.
        judgements: files of human judgements of words; see `zoo.evaluation.suites.words.judge`.
    """

    split: SplitName = "test"
    samples: int | None = None
    k: int = 100
    features: str = "auto"
    weights: Path | None = None
    seed: int = 0
    draws: int = 3
    judgements: tuple[Path, ...] = ()


class EvaluationContext:
    """A model, its data, and samples; each is computed once, on first access.

    Args:
        model: in eval mode, on its device.
        data: loaded.
        protocol: evaluation protocol.
        options: keyword arguments of the model's `sample`, such as its steps.
    """

    def __init__(
        self, model: Model, data: DataModule, protocol: EvaluationConfig, options: Mapping[str, Any] | None = None
    ) -> None:
        self.model, self.data, self.protocol, self.options = model, data, protocol, dict(options or {})
        if protocol.split != "held_out":
            self.held: Split = getattr(data, protocol.split)
        elif data.spec.text:
            raise ConfigError("split=held_out: for images and vectors; the splits of text are not joined. Use test.")
        else:
            self.held = torch.cat([data.val[0], data.test[0]]), torch.cat([data.val[1], data.test[1]])

    def redrawn(self, number: int) -> "EvaluationContext":
        """The same model, data and features, with the seed of another draw of samples."""
        if not number:
            return self
        protocol = replace(self.protocol, seed=self.protocol.seed + number)
        other = EvaluationContext(self.model, self.data, protocol, self.options)
        known = ("features", "held_out")  # they do not depend on the seed
        other.__dict__.update({name: self.__dict__[name] for name in known if name in self.__dict__})
        return other

    def real(self, split: Split, indices: Tensor, *, train: bool) -> Split:
        """Fetch data of a split (N, *shape), and labels (N,)."""
        parts = [
            self.data.fetch(split, some, make_generator(self.protocol.seed, number), train=train)
            for number, some in enumerate(indices.split(BATCH))
        ]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    @property
    def room(self) -> int:
        """Number of samples that fit in memory."""
        return max(MAX_VALUES // self.data.spec.size, 2)

    @property
    def order(self) -> Tensor:
        """Rows of the split in their fixed order: every prefix is a random part."""
        return fixed_order(len(self.held[0]))

    @cached_property
    def held_out(self) -> Split:
        """The split in its fixed order, limited by `MAX_SAMPLES` and memory."""
        return self.real(self.held, self.order[: min(MAX_SAMPLES, self.room)], train=False)

    def batches(self, size: int = BATCH) -> Iterator[Batch]:
        """The whole split in its fixed order, on the model's device."""
        for some in self.order.split(size):
            fetched = self.data.fetch(self.held, some, make_generator(self.protocol.seed), train=False)
            yield Batch.of(fetched).to(self.model.device)

    @cached_property
    def training(self) -> Tensor:
        """A random subset of the training data, as large as the samples, for real data references."""
        order = torch.randperm(len(self.data.train[0]), generator=make_generator(self.protocol.seed, 1))
        return self.real(self.data.train, order[: self.n], train=True)[0]

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.protocol.samples or min(len(self.data.train[0]), MAX_SAMPLES, self.room)

    @cached_property
    def drawn(self) -> Split:
        """Samples (n, *shape) on the CPU, and their classes or texts; zero for an unconditional model.

        Conditions are drawn from the training data, because samples are compared with data of these frequencies.
        """
        x, y, trained = [], [], self.data.train[1]
        rows = torch.randint(len(trained), (self.n,), generator=make_generator(self.protocol.seed, 6))
        labels = trained[rows]
        for number, some in enumerate(torch.arange(self.n).split(BATCH)):
            given = labels[some] if self.model.conditional or self.reads_text else None
            x.append(self.sample(len(some), given, 2, number))
            y.append(torch.zeros_like(some) if given is None else given)
        return torch.cat(x), torch.cat(y)

    @property
    def reads_text(self) -> bool:
        """Whether samples are drawn given a text."""
        return not self.model.spec.text and isinstance(getattr(self.model, "given", None), Tokens)

    def sample(self, n: int, condition: Tensor | None, *key: int) -> Tensor:
        """Draw samples (n, *shape) on the CPU, by the seed of the protocol and a key of the set."""
        generator = make_generator(self.protocol.seed, *key)
        return self.model.sample(n, condition=condition, generator=generator, **self.options).cpu().float()

    @cached_property
    def features(self) -> Features:
        """Feature extractor of sample metrics; data with texts may have a form with labels, `labelled`."""
        data: DataModule = getattr(self.data, "labelled", self.data)
        return features_for(data.spec, self.protocol.features, self.protocol.weights, data=data)

    def described(self) -> dict[str, Any]:
        """Name of the features that were used, hash of their weights, and accuracy of a classifier."""
        used: Features | None = self.__dict__.get("features")
        return {} if used is None else {"name": used.name, "sha256": used.sha256, **used.facts}

    def name(self, metric: str, n: int | None = None) -> str:
        """Full name of a metric: `fd_digits@1437_test`, with number of samples, split and variant of the data."""
        size = len(self.held[0]) if n is None else n
        return "_".join(filter(None, [f"{metric}@{count(size)}", self.protocol.split, self.data.variant]))


def count(n: int) -> str:
    """Format a number: 10000 -> "10k", 1437 -> "1437"."""
    return f"{n // 1000}k" if n % 1000 == 0 and n else str(n)
