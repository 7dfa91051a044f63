"""What metrics in given features say about sets whose faults are known: a scale to read other values by.

Every set is made from a part of the training data and scored like samples of a model, against the validation
split; the rest of the training data is what a model would have been trained on. So the first row, data without
fault, is the floor: about what a perfect model would score with as many samples. It also holds what sets the
splits apart, other writers for one, and that the classifier knows the training images. The test split is not
touched.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.data.base import DataModule
from zoo.data.loader import ShuffledSampler, make_generator
from zoo.evaluation.features.base import Features
from zoo.metrics.c2st import two_sample_accuracy
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.memorisation import memorisation
from zoo.metrics.mmd import kernel_distance
from zoo.metrics.prdc import prdc

LARGEST = 5_000  # samples of each set
LEAST = 10
PROBED = 1_000  # samples whose nearest training images are looked for, which takes the longest
COPIED = 100  # images that are copied over and over
SHARE = 2.5  # images set aside for each sample, so that half of the classes may be left out


def calibrate(features: Features, data: DataModule) -> dict[str, dict[str, float]]:
    """Metrics of each faulty set, as name -> metric -> value.

    Raises:
        ZooError: too few images, see `size`.
    """
    n = size(data)
    held_out, _ = images(data, "val", torch.arange(n))
    order = ShuffledSampler(len(data.train[0]), seed=0).epoch(0)
    aside, rest = order[: int(SHARE * n)], order[int(SHARE * n) :]
    train, _ = images(data, "train", rest)
    reference = features(held_out)
    table = {}
    for name, samples in faulty(*images(data, "train", aside), train[:COPIED], n, data.spec.n_classes):
        table[name] = scores(features(samples), reference) | memorised(samples, held_out, train)
    return table


def size(data: DataModule) -> int:
    """How many samples a set has: as many as there are validation images, at most `LARGEST`, fewer for few images.

    Raises:
        ZooError: too few for any metric.
    """
    n = min(len(data.val[0]), LARGEST, int(len(data.train[0]) / (SHARE + 1)))
    if n < LEAST:
        raise ZooError(
            f"{data.spec} is too small to measure features on, with {len(data.train[0])} training and "
            f"{len(data.val[0])} validation images: {int(LEAST * (SHARE + 1))} and {LEAST} are the least."
        )
    return n


def images(data: DataModule, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a split as they are fetched without augmentation, (N, C, H, W) and (N,)."""
    parts = [data.fetch(getattr(data, split), part, make_generator(0), train=False) for part in rows.split(500)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def faulty(x: Tensor, y: Tensor, copied: Tensor, n: int, n_classes: int) -> Iterator[tuple[str, Tensor]]:
    """Sets of n images each, made from more images (N, C, H, W) with labels (N,), in order of what is wrong.

    Classes are left out where enough images of the others remain.
    """
    generator, first, half = make_generator(0), x[:n], n_classes // 2
    yield "floor", first
    yield "noise", (first + 0.1 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    yield "blur", F.avg_pool2d(F.pad(first, [1] * 4, mode="replicate"), 3, stride=1)
    for missing in sorted({1, half}):
        if int((y >= missing).sum()) >= n:
            yield f"{missing} of {n_classes} classes missing", x[y >= missing][:n]
    yield f"{len(copied)} images copied", copied[torch.arange(n) % len(copied)]
    flat = first.flatten(1)
    shuffled = torch.rand(flat.shape, generator=generator).argsort(0)  # each pixel for itself
    yield "per-pixel marginal", flat.gather(0, shuffled).view_as(first)
    yield "uniform noise", torch.rand(first.shape, generator=generator)


def scores(samples: Tensor, reference: Tensor) -> dict[str, float]:
    """Metrics of features (N, D) against others (M, D)."""
    return {
        "frechet": float(frechet(moments(samples), moments(reference))),
        "kernel": kernel_distance(samples, reference),
        **prdc(reference, samples),
        "two_sample": two_sample_accuracy(samples, reference),
    }


def memorised(samples: Tensor, held_out: Tensor, train: Tensor) -> dict[str, float]:
    """The memorisation probe on pixels, of the first samples."""
    found = memorisation(samples[:PROBED], held_out[:PROBED], train)
    return {name: found[name] for name in ("ratio", "copied", "authentic")}
