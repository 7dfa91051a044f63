"""Mode coverage: which modes of the data the samples hit, and how often.

Modes are counted twice: those with any sample, which scattered samples inflate, and those with at least a fifth of
their fair share.
"""

import torch
from torch import Tensor

MIN_SHARE = 0.2  # minimum fraction of the fair share
MAX_SIGMAS = 3.0  # maximum distance of high-quality points from a center, in standard deviations


def class_histogram_kl(predicted: Tensor, labels: Tensor, n_classes: int) -> dict[str, float]:
    """Compare predicted classes of samples (M,) with classes of real data (N,), 0 ... n_classes - 1.

    - seen: classes with a sample; strict: with at least a fifth of their fair share, that of the real data;
    - kl: KL(samples || real) in nats, infinite if samples have a class that is missing in the real data. By chance
      alone it is about (n_classes - 1) / 2 (1/M + 1/N);
    - largest_deviation: maximum absolute difference of class shares.
    """
    counts, real = (torch.bincount(t.cpu(), minlength=n_classes).double() for t in (predicted, labels))
    share, fair = counts / counts.sum(), real / real.sum()
    return {
        "seen": int((counts > 0).sum()),
        "strict": _strict(counts, fair),
        "kl": _kl(share, fair),
        "largest_deviation": float((share - fair).abs().max()),
    }


def points_on_modes(x: Tensor, centers: Tensor, sigma: float) -> dict[str, float]:
    """Score points (N, 2) against equally likely round Gaussians at centers (K, 2), as in VEEGAN (1705.07761).

    - high_quality: share of points within 3 sigma of their nearest center, ideally 1 - exp(-9/2) = 0.9889;
    - modes: centers with a high-quality point; strict: with at least a fifth of their fair share of these;
    - kl: KL(high-quality points || uniform) in nats, between 0 and log K, nan without such points. By chance alone it
      is about (K - 1) / 2N.
    """
    distance, center = torch.cdist(x.double(), centers.to(x.device).double()).min(dim=1)
    good = distance <= MAX_SIGMAS * sigma
    counts = torch.bincount(center[good].cpu(), minlength=len(centers)).double()
    fair = torch.full_like(counts, 1 / len(centers))
    return {
        "modes": int((counts > 0).sum()),
        "strict": _strict(counts, fair),
        "high_quality": float(good.double().mean()),
        "kl": _kl(counts / counts.sum(), fair),
    }


def _strict(counts: Tensor, fair: Tensor) -> int:
    enough = counts > MIN_SHARE * fair * counts.sum() - 1e-6  # exactly a fifth is enough, up to rounding
    return int(((counts > 0) & enough).sum())


def _kl(share: Tensor, fair: Tensor) -> float:
    return float((torch.special.xlogy(share, share) - torch.special.xlogy(share, fair)).sum())
