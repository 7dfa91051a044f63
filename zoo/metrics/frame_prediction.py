"""Errors of predicted frames, and the simple predictions that a model has to improve on."""

import torch
from torch import Tensor

from zoo.metrics.motion import centroids


def frame_errors(predicted: Tensor, real: Tensor) -> Tensor:
    """Squared error of frames (N, F, C, H, W), summed over the values of a frame: (N, F), float64.

    Its mean over videos and frames is the MSE of results on Moving MNIST (Shi et al. 2015, arXiv:1506.04214).
    """
    return (predicted.double() - real.double()).square().flatten(2).sum(2)


def repeat_last(given: Tensor, n: int) -> Tensor:
    """The last of the given frames (N, K, C, H, W), n times: (N, n, C, H, W)."""
    return given[:, -1:].expand(-1, n, -1, -1, -1)


def extrapolate_motion(given: Tensor, n: int) -> Tensor:
    """The last given frame, moved by the last change of its centroid per step: (N, n, C, H, W).

    It is the right prediction for one rigid thing of constant speed on black, in whole pixels, until it meets an edge.

    Args:
        given: frames (N, K, C, H, W), at least 2.
        n: frames to predict.

    Raises:
        ValueError: fewer than 2 frames.
    """
    if given.shape[1] < 2:
        raise ValueError(f"given={given.shape[1]}: one frame does not have a speed. Give at least 2.")
    before, last = centroids(given[:, -2:]).unbind(1)  # (N, 2)
    steps = torch.arange(1, n + 1)[:, None]
    return shifted(given[:, -1], ((last - before)[:, None] * steps).round().long())


def shifted(frame: Tensor, offsets: Tensor) -> Tensor:
    """Frames (N, C, H, W), moved by whole pixels down and right, int64 (N, n, 2): (N, n, C, H, W); black comes in."""
    count, _, h, w = frame.shape
    rows = torch.arange(h) - offsets[..., :1]  # (N, n, H): where each pixel comes from
    columns = torch.arange(w) - offsets[..., 1:]
    inside = ((rows >= 0) & (rows < h))[..., :, None] & ((columns >= 0) & (columns < w))[..., None, :]  # (N, n, H, W)
    at = torch.arange(count)[:, None, None, None]
    taken = frame[at, :, rows.clamp(0, h - 1)[..., :, None], columns.clamp(0, w - 1)[..., None, :]]  # (N, n, H, W, C)
    return taken.movedim(-1, 2) * inside[:, :, None]
