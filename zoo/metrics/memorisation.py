"""Memorisation: distances of samples to the training data, compared with those of held-out data."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoo.metrics.pairwise import nearest

COPY_QUANTILE = 0.01  # quantile of held-out distances: the expected share of false positives


Views = Callable[[Tensor], Sequence[Tensor]]  # (N, *shape) -> its forms in training, each (N, *shape)


def as_it_is(x: Tensor) -> Sequence[Tensor]:
    """The only form of data that are not augmented."""
    return [x]


def memorisation(samples: Tensor, held_out: Tensor, train: Tensor, views: Views = as_it_is) -> dict[str, float]:
    """Scores from the Euclidean distance to the nearest training point; all inputs are (N, *shape).

    - ratio: median distance of the samples over that of held-out data: 1 is ideal, 0 means copies;
    - copied: share of samples as near as the nearest hundredth of held-out data: 0.01 is ideal, 1 means copies;
    - authentic: share of samples farther from their nearest training point than that point is from its nearest other
      training point (Alaa et al. 2022, 2102.08921, section 3): 0 means copies;
    - authentic_held_out: the ideal of authentic: one third on a line, 0.83 for Gaussians in 64 dimensions.

    The ratio is nan or infinite if half of the held-out data are copies. With one training point, authentic is nan. A
    distance is the smallest over the `views` of a point, such as a picture and its mirror image.

    Pixel distances detect little more than exact copies. Training images of scikit-learn's digits with noise of
    standard deviation 0.05 score 0.39, 1 and 0. Blurred by a 3x3 mean they score 1.63, 0 and 0.99, like blurred
    held-out images (1.65, 0 and 1).
    """
    train = train.flatten(1)
    distance, neighbour = _nearest_view(views(samples), train)
    held_out_distance, held_out_neighbour = _nearest_view(views(held_out), train)
    return {
        "ratio": float(distance.quantile(0.5) / held_out_distance.quantile(0.5)),
        "copied": float((distance <= held_out_distance.quantile(COPY_QUANTILE)).double().mean()),
        "authentic": _authentic(distance, neighbour, train),
        "authentic_held_out": _authentic(held_out_distance, held_out_neighbour, train),
    }


def _nearest_view(views: Sequence[Tensor], train: Tensor) -> tuple[Tensor, Tensor]:
    """Distance and index (N,) of the training vector (M, D) that is nearest to any view (N, *shape) of a point."""
    found = [nearest(view.flatten(1), train) for view in views]
    distances, neighbours = (torch.stack(parts) for parts in zip(*found, strict=True))  # (views, N)
    distance, view = distances.min(0)
    return distance, neighbours.gather(0, view[None])[0]


def _authentic(distance: Tensor, neighbour: Tensor, train: Tensor) -> float:
    """Share of distances above the one from that neighbour to its nearest other training point."""
    if len(train) < 2:
        return math.nan
    unique, inverse = neighbour.unique(return_inverse=True)
    spacing, _ = nearest(train[unique], train, 2)
    return float((distance > spacing[inverse]).double().mean())
