"""Calibration of features: metrics of sets with known faults, a scale for other values.

Each set is made from a part of the training data, and scored against the validation split like samples of a model. The
rest of the training data takes the place of a model's training data. The set "floor" does not have a fault: it is the
score of a perfect model with as many samples. It includes differences between the splits. The test split is not used.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.data.base import DataModule
from zoo.data.loader import ShuffledSampler, fixed_order, make_generator
from zoo.evaluation.features.base import Features
from zoo.metrics.c2st import two_sample_accuracy
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.memorisation import memorisation
from zoo.metrics.mmd import kernel_distance
from zoo.metrics.prdc import prdc

MAX_SAMPLES, MIN_SAMPLES = 5_000, 10  # of each set
N_PROBED = 1_000  # samples in the memorisation probe, the slowest part
N_COPIED = 100  # images in the set of copies
SHARE = 2.5  # images reserved per sample, so that half of the classes can be removed


def calibrate(features: Features, data: DataModule) -> dict[str, dict[str, float]]:
    """Measure the metrics of each faulty set: name -> metric -> value.

    Raises:
        ZooError: too few images, see `size`.
    """
    n = size(data)
    held_out, _ = images(data, "val", fixed_order(len(data.val[0]))[:n].sort().values)
    order = ShuffledSampler(len(data.train[0]), seed=0).epoch(0)
    aside, rest = order[: int(SHARE * n)], order[int(SHARE * n) :]
    train, _ = images(data, "train", rest)
    reference = features(held_out)
    table = {}
    for name, samples in faulty(*images(data, "train", aside), train[:N_COPIED], n, data.spec.n_classes):
        table[name] = scores(features(samples), reference) | memorised(samples, held_out, train)
    return table


def size(data: DataModule) -> int:
    """Number of samples of a set: the size of the validation split, limited by `MAX_SAMPLES` and the training images.

    Raises:
        ZooError: fewer than `MIN_SAMPLES`.
    """
    n = min(len(data.val[0]), MAX_SAMPLES, int(len(data.train[0]) / (SHARE + 1)))
    if n < MIN_SAMPLES:
        raise ZooError(
            f"{data.spec} is too small to measure features, with {len(data.train[0])} training and {len(data.val[0])} "
            f"validation images. Give at least {int(MIN_SAMPLES * (SHARE + 1))} and {MIN_SAMPLES}."
        )
    return n


def images(data: DataModule, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Fetch rows of a split without augmentation: (N, C, H, W) and (N,)."""
    parts = [data.fetch(getattr(data, split), part, make_generator(0), train=False) for part in rows.split(500)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def faulty(x: Tensor, y: Tensor, copied: Tensor, n: int, n_classes: int) -> Iterator[tuple[str, Tensor]]:
    """Make sets of n samples with known faults, from images (N, C, H, W), videos (N, F, C, H, W) or sounds (N, C, T).

    Their labels are (N,). Images and videos are in [0, 1], and sounds in [-1, 1].
    Classes are removed if enough images of the others remain.
    """
    generator, first, half = make_generator(0), x[:n], n_classes // 2
    yield "floor", first
    least, loudness = (-1, 0.03) if first.ndim == 3 else (0, 0.1)
    yield "noise", (first + loudness * torch.randn(first.shape, generator=generator)).clamp(least, 1)
    if first.ndim == 3:
        yield "low-pass", F.avg_pool1d(F.pad(first, (2, 1), mode="replicate"), 4, stride=1)
        yield "backwards", first.flip(2)
    elif first.ndim == 5:
        yield "frames shuffled", shuffled_frames(first, generator)
        yield "frozen", frozen(first)
    else:
        yield "blur", F.avg_pool2d(F.pad(first, [1] * 4, mode="replicate"), 3, stride=1)
    for missing in sorted({1, half}):
        if int((y >= missing).sum()) >= n:
            yield f"{missing} of {n_classes} classes missing", x[y >= missing][:n]
    yield f"{len(copied)} {'sounds' if first.ndim == 3 else 'images'} copied", copied[torch.arange(n) % len(copied)]
    flat = first.flatten(1)
    shuffled = torch.rand(flat.shape, generator=generator).argsort(0)  # each pixel independently
    yield "per-pixel marginal", flat.gather(0, shuffled).view_as(first)
    yield "uniform noise", torch.rand(first.shape, generator=generator) * (1 - least) + least


def shuffled_frames(x: Tensor, generator: torch.Generator) -> Tensor:
    """Videos (N, F, ...) with their frames in a random order, one for each."""
    order = torch.rand(x.shape[:2], generator=generator).argsort(1)
    return x[torch.arange(len(x))[:, None], order]


def frozen(x: Tensor) -> Tensor:
    """The first frame of videos (N, F, ...) in place of all."""
    return x[:, :1].expand_as(x).clone()


def scores(samples: Tensor, reference: Tensor) -> dict[str, float]:
    """Compare features (N, D) with others (M, D)."""
    return {
        "frechet": float(frechet(moments(samples), moments(reference))),
        "kernel": kernel_distance(samples, reference),
        **prdc(reference, samples),
        "two_sample": two_sample_accuracy(samples, reference),
    }


def memorised(samples: Tensor, held_out: Tensor, train: Tensor) -> dict[str, float]:
    """The memorisation probe on pixels, of the first samples."""
    found = memorisation(samples[:N_PROBED], held_out[:N_PROBED], train)
    return {name: found[name] for name in ("ratio", "copied", "authentic")}
