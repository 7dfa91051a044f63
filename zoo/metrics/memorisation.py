"""Memorisation: distances of samples to the training data, compared with those of held-out data."""

from torch import Tensor

from zoo.metrics.pairwise import nearest

COPY_QUANTILE = 0.01  # quantile of held-out distances: the expected share of false positives


def memorisation(samples: Tensor, held_out: Tensor, train: Tensor) -> dict[str, float]:
    """Scores from the Euclidean distance to the nearest training point; all inputs are (N, *shape).

    - ratio: median distance of the samples over that of held-out data: 1 is ideal, 0 means copies;
    - copied: share of samples as near as the nearest hundredth of held-out data: 0.01 is ideal, 1 means copies;
    - authentic: share of samples farther from their nearest training point than that point is from its nearest other
      training point (Alaa et al. 2022, 2102.08921, section 3): 0 means copies;
    - authentic_held_out: the ideal of authentic: one third on a line, 0.83 for Gaussians in 64 dimensions.

    The ratio is nan or infinite if half of the held-out data are copies.

    Pixel distances detect little more than exact copies. Training images of scikit-learn's digits with noise of
    standard deviation 0.05 score 0.39, 1 and 0. Blurred by a 3x3 mean they score 1.63, 0 and 0.99, like blurred
    held-out images (1.65, 0 and 1).
    """
    samples, held_out, train = samples.flatten(1), held_out.flatten(1), train.flatten(1)
    distance, neighbour = nearest(samples, train)
    held_out_distance, held_out_neighbour = nearest(held_out, train)
    return {
        "ratio": float(distance.quantile(0.5) / held_out_distance.quantile(0.5)),
        "copied": float((distance <= held_out_distance.quantile(COPY_QUANTILE)).double().mean()),
        "authentic": _authentic(distance, neighbour, train),
        "authentic_held_out": _authentic(held_out_distance, held_out_neighbour, train),
    }


def _authentic(distance: Tensor, neighbour: Tensor, train: Tensor) -> float:
    """Share of distances above the one from that neighbour to its nearest other training point."""
    unique, inverse = neighbour.unique(return_inverse=True)
    spacing, _ = nearest(train[unique], train, 2)
    return float((distance > spacing[inverse]).double().mean())
