"""Motion of videos: the path of the bright part of frames, and its distance to paths of a known law."""

import torch
from torch import Tensor

CLOSE = 0.5  # pixels: a path that is nearer than this follows the law
CHUNK = 1_000  # videos that are compared at once


def centroids(x: Tensor) -> Tensor:
    """Mean place of brightness in each frame of videos (N, F, C, H, W): row and column, (N, F, 2) pixels, float64.

    A black frame has its middle as place.
    """
    light = x.double().clamp(min=0).mean(2)  # (N, F, H, W)
    total = light.sum((2, 3))
    rows = (light.sum(3) * torch.arange(x.shape[3])).sum(2)
    columns = (light.sum(2) * torch.arange(x.shape[4])).sum(2)
    middle = torch.tensor([x.shape[3] - 1, x.shape[4] - 1], dtype=torch.float64) / 2
    found = torch.stack([rows, columns], 2) / total.clamp(min=1e-12)[..., None]
    return torch.where(total[..., None] > 1e-6, found, middle)


def track_error(x: Tensor, tracks: Tensor) -> Tensor:
    """Distance of videos (N, F, C, H, W) to the nearest possible path, (N,) pixels, float64.

    The path of a video is that of its centroid, which lies at a constant but unknown place inside of the moving thing.
    The distance is the root mean square over frames, of both axes together, after the best constant is subtracted.

    Args:
        x: videos in [0, 1].
        tracks: possible places along an axis, (K, F).
    """
    path = centroids(x.cpu())
    path = path - path.mean(1, keepdim=True)  # (N, F, 2)
    known = tracks.double() - tracks.double().mean(1, keepdim=True)  # (K, F)
    parts = []
    for part in path.split(CHUNK):
        squared = (part[:, None] - known[None, :, :, None]).square().mean(2)  # (n, K, 2)
        parts.append(squared.amin(1).sum(1).sqrt())
    return torch.cat(parts)


def motion_scores(x: Tensor, tracks: Tensor) -> dict[str, float]:
    """Mean distance to the law, pixels, and the share of videos that follow it; see `track_error`."""
    error = track_error(x, tracks)
    return {"error": float(error.mean()), "kept": float((error < CLOSE).double().mean())}
