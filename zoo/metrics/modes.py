"""Are all parts of the data there, each as often as it should be?

Modes are counted twice: those that any sample hits, the usual number, which a scattering of stray samples
makes perfect, and strictly those that get at least a fifth of their fair share.
"""

import torch
from torch import Tensor

STRICT = 0.2  # share of its fair share that a mode needs
RADIUS = 3.0  # standard deviations from its center that a point of high quality may be


def class_histogram_kl(predicted: Tensor, labels: Tensor, n_classes: int) -> dict[str, float]:
    """Classes 0 ... n_classes - 1 of samples, as a classifier sees them, (M,) against those of real data, (N,).

    - seen: classes with a sample; strict: with at least a fifth of their fair share, that of the real data;
    - kl: KL(samples || real) in nats, infinite where samples have a class that the real data lacks; by chance
      alone it is about (n_classes - 1) / 2 (1/M + 1/N);
    - largest_deviation: of a class's share among samples from that among real data, absolute.
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
    """Points (N, 2) on equally likely round Gaussians at centers (K, 2), as VEEGAN (1705.07761) scores them.

    - high_quality: share of points within 3 sigma of their nearest center, ideally 1 - exp(-9/2) = 0.9889;
    - modes: centers with a point of high quality; strict: with at least a fifth of their fair share of these;
    - kl: KL(points of high quality || uniform) in nats, between 0 and log K, nan where there are none; by
      chance alone it is about (K - 1) / 2N.
    """
    distance, center = torch.cdist(x.double(), centers.to(x.device).double()).min(dim=1)
    good = distance <= RADIUS * sigma
    counts = torch.bincount(center[good].cpu(), minlength=len(centers)).double()
    fair = torch.full_like(counts, 1 / len(centers))
    return {
        "modes": int((counts > 0).sum()),
        "strict": _strict(counts, fair),
        "high_quality": float(good.double().mean()),
        "kl": _kl(counts / counts.sum(), fair),
    }


def _strict(counts: Tensor, fair: Tensor) -> int:
    enough = counts > STRICT * fair * counts.sum() - 1e-6  # exactly a fifth is enough, however it is rounded
    return int(((counts > 0) & enough).sum())


def _kl(share: Tensor, fair: Tensor) -> float:
    return float((torch.special.xlogy(share, share) - torch.special.xlogy(share, fair)).sum())
